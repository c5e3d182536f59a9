"""The engine as the service has it, or with other options."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from app import bundle as bundles
from app import engines, heatmaps
from app.engines import Cut, Engine
from app.settings import Settings
from benchmarks import pictures
from benchmarks.protocol import serve
from benchmarks.timing import timed


def make() -> dict[str, Callable[..., Any]]:
    """Load what the command line asks for; `--engine` and the like default to the settings."""
    settings = Settings()
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default=settings.engine)
    parser.add_argument("--precision", default=settings.precision)
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    bundle = bundles.load(settings.model_path)
    engine = engines.create(
        bundle,
        engine=chosen.engine,
        device=settings.device,
        precision=chosen.precision,
        threads=settings.threads,
    )
    options = dict(each.split("=", 1) for each in chosen.options)
    if options:
        _set_options(engine, options)
    size = bundle.card.input.size

    def batch(rows: int) -> tuple[Any, ...]:
        image = np.stack([pictures.pixels(size, size, seed) for seed in range(rows)])
        return image, np.full(rows, -1, np.int32), np.full(rows, -1, np.int32)

    def run(cut: str, rows: int = 1, count: int = 1) -> list[float]:
        inputs = batch(rows)
        return timed(lambda: engine.run(Cut(cut), *inputs), count)

    def run_together(cut: str, rows: int, requests: int, count: int = 1) -> list[float]:
        return _run_together(engine, Cut(cut), batch(rows), requests, count)

    def profile(cut: str, rows: int = 1, count: int = 1) -> dict[str, float]:
        return _profile(engine, Cut(cut), batch(rows), count)

    def heatmap() -> list[list[float]]:
        values: list[list[float]] = _explain(engine, batch(1), size).tolist()
        return values

    def explain(count: int = 1) -> list[float]:
        inputs = batch(1)
        return timed(lambda: _explain(engine, inputs, size), count)

    return {
        "run": run,
        "run_together": run_together,
        "profile": profile,
        "explain": explain,
        "heatmap": heatmap,
    }


def _explain(engine: Engine, inputs: tuple[Any, ...], size: int) -> Any:
    """A photo's Grad-CAM of its likeliest class, 0..1, `[size, size]`."""
    arrays = engine.run(Cut.EXPLAIN, *inputs)
    found = heatmaps.from_maps([arrays["gradcam"][0]], signed=False)
    return heatmaps.resize(found.values, size, size)


def _set_options(engine: Any, options: dict[str, str]) -> None:
    """OpenVINO's own options; the service has no setting for them, so this reaches inside."""
    engine._options.update(options)


def _profile(engine: Any, cut: Cut, inputs: tuple[Any, ...], count: int) -> dict[str, float]:
    """Mean milliseconds of each kind of operation, as OpenVINO counts with `PERF_COUNT=YES`."""
    total: dict[str, float] = {}
    engine.run(cut, *inputs)
    for _ in range(count):
        engine.run(cut, *inputs)
        for node in engine._requests[cut].get_profiling_info():
            spent = node.real_time.total_seconds() * 1000 / count
            total[node.node_type] = total.get(node.node_type, 0.0) + spent
    return total


def _run_together(
    engine: Any, cut: Cut, inputs: tuple[Any, ...], requests: int, count: int
) -> list[float]:
    """Milliseconds for several batches that OpenVINO is given at once."""
    engine.run(cut, *inputs)
    compiled = engine._requests[cut].get_compiled_model()
    given = dict(zip(("image", "class_index", "versus_index"), inputs, strict=True))
    if cut is Cut.PREDICT:
        given = {"image": given["image"]}
    waiting = [compiled.create_infer_request() for _ in range(requests)]

    def once() -> None:
        for request in waiting:
            request.start_async(given, share_inputs=True)
        for request in waiting:
            request.wait()

    once()
    return timed(once, count)


if __name__ == "__main__":
    serve(make)
