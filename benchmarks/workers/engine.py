"""The engine with the service's options, or with others."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from app import bundle as bundles
from app import engines, heatmaps
from app.engines import Batch, Cut, Engine
from app.settings import Settings
from benchmarks import pictures
from benchmarks.protocol import serve
from benchmarks.timing import timed


def make() -> dict[str, Callable[..., Any]]:
    """Load the engine of the command line; its options default to the settings."""
    settings = Settings()
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default=settings.engine)
    parser.add_argument("--precision", default=settings.precision)
    parser.add_argument("--streams", type=int, help="OpenVINO's, in place of the engine's choice")
    parser.add_argument("--count-operations", action="store_true", help="for `profile`; takes time")
    options = parser.parse_args()
    bundle = bundles.load(settings.model_path)
    overrides = {"engine": options.engine, "precision": options.precision}
    engine = engines.create(bundle, **{**settings.engine_options, **overrides})
    _reach_inside(engine, options.streams, options.count_operations)
    size = bundle.card.input.size

    def batch(rows: int) -> Batch:
        return Batch.of(np.stack([pictures.pixels(size, size, seed) for seed in range(rows)]))

    def precision() -> str:
        return engine.info.precision

    def run(cut: str, rows: int = 1, count: int = 1) -> list[float]:
        inputs = batch(rows)
        return timed(lambda: engine.run(Cut(cut), inputs), count)

    def profile(cut: str, rows: int = 1, count: int = 1) -> dict[str, float]:
        return _profile(engine, Cut(cut), batch(rows), count)

    def heatmap() -> list[list[float]]:
        values: list[list[float]] = _explain(engine, batch(1), size).tolist()
        return values

    def explain(count: int = 1) -> list[float]:
        inputs = batch(1)
        return timed(lambda: _explain(engine, inputs, size), count)

    return {
        "precision": precision,
        "run": run,
        "profile": profile,
        "explain": explain,
        "heatmap": heatmap,
    }


def _explain(engine: Engine, inputs: Batch, size: int) -> Any:
    """Grad-CAM of a photo's top-1 class, 0..1, `[size, size]`."""
    arrays = engine.run(Cut.EXPLAIN, inputs)
    heatmap = heatmaps.from_maps([arrays["gradcam"][0]], signed=False)
    return heatmaps.resize(heatmap.values, size, size)


def _reach_inside(engine: Any, streams: int | None, count_operations: bool) -> None:
    """Set options of OpenVINO that the service has no settings for."""
    if streams:
        engine._streams = streams
    if count_operations:
        engine._options["PERF_COUNT"] = True


def _profile(engine: Any, cut: Cut, inputs: Batch, count: int) -> dict[str, float]:
    """Mean milliseconds of each kind of operation, as OpenVINO counts with `PERF_COUNT=YES`.

    Of a batch that runs in several calls, of the last one.
    """
    total: dict[str, float] = {}
    engine.run(cut, inputs)
    *_, rows = engine._calls(cut, len(inputs))
    requests = engine._bound(cut, rows).requests
    for _ in range(count):
        engine.run(cut, inputs)
        for node in [node for request in requests for node in request.get_profiling_info()]:
            milliseconds = node.real_time.total_seconds() * 1000 / count
            total[node.node_type] = total.get(node.node_type, 0.0) + milliseconds
    return total


if __name__ == "__main__":
    serve(make)
