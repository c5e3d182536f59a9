"""8-bit integers: speed and accuracy beside the model's other precision."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app import bundle as bundles
from app.bundle import Bundle
from app.engines import Batch, Cut, Engine, create
from app.errors import EngineUnavailable
from app.settings import Settings
from benchmarks import pictures
from benchmarks.cuts import CALLS, ROWS
from benchmarks.results import Part, Table, Target
from benchmarks.timing import Spread, interleave, timed
from training.data.loading import load_for_model
from training.evaluation.evaluate import evaluate

__all__ = ["run"]

MAY_FALL = 0.005
"""The most that top-1 accuracy and mean IoU may fall on test photos."""

MAY_TAKE = 0.65
"""The most time that `explain` may take, as a multiple of the other precision's."""


def run(rounds: int, data_dir: Path | None = None) -> Part:
    """Compare the two graphs of the settings' model.

    Args:
        rounds: timed calls of each cut.
        data_dir: a prepared TFDS directory with Stanford Dogs; without it, accuracy is left out.
    """
    bundle = bundles.load(Settings().model_path)
    part = Part(
        "8-bit integers",
        "The engine alone, with the graph in 8-bit integers and with the SavedModel. The first "
        "convolution, the head, the maps and the backward pass of earlier layers stay in floating "
        "point in both.",
    )
    engines: dict[str, Engine] = {}
    for precision in ("float", "int8"):
        try:
            engine = create(bundle, engine="openvino", device="cpu", precision=precision)
        except EngineUnavailable as error:
            part.missing.append(str(error))
            return part
        engines[engine.info.precision] = engine
    _report_speed(part, bundle, engines, rounds)
    if data_dir is None:
        part.missing.append("accuracy: it needs --data-dir")
        return part
    test = load_for_model("stanford_dogs", data_dir, bundle.card.labels, config={}).test
    figures = {
        name: _figures(evaluate(bundle, engine, test).summary()) for name, engine in engines.items()
    }
    part.figures = figures
    _report_accuracy(part, figures, photos=len(test))
    return part


def _figures(summary: dict[str, Any]) -> dict[str, float]:
    """The figures to compare, out of the summary of an evaluation."""
    ious = {
        f"mean IoU, {method}, {layers}{rule}": iou
        for rule, table in (("", "mean_iou"), (", fused", "mean_iou_fused"))
        for method, by_layers in summary[table].items()
        for layers, iou in by_layers.items()
        if layers in ("last", "last6")
    }
    return {"top-1": summary["top1"], "calibration error": summary["ece"], **ious}


def _report_accuracy(part: Part, figures: dict[str, dict[str, float]], *, photos: int) -> None:
    base, int8 = figures.values()
    part.tables.append(
        Table(
            ("", *figures, "difference"),
            [
                (name, f"{base[name]:.4f}", f"{int8[name]:.4f}", f"{int8[name] - base[name]:+.4f}")
                for name in base
            ],
            f"On {photos:,} test photos.",
        )
    )
    for name in base:
        lost = base[name] - int8[name]
        if name == "calibration error":
            lost = -lost
        part.targets.append(Target(f"int8: what {name} loses", lost, MAY_FALL))


def _compare(
    bundle: Bundle,
    engines: Mapping[str, Engine],
    *,
    rounds: int,
    rows: int = 1,
) -> dict[str, dict[Cut, Spread]]:
    """Milliseconds of each cut, by the name of the engine.

    Args:
        bundle: the model version.
        engines: that run it, by name.
        rounds: timed calls of each cut, in turn.
        rows: photos in a call.
    """
    size = bundle.card.input.size
    batch = Batch.of(np.stack([pictures.pixels(size, size, seed) for seed in range(rows)]))

    def call(engine: Engine, cut: Cut) -> Callable[[], list[float]]:
        # The first call is dropped: it finds the caches full of the other graph.
        return lambda: timed(lambda: engine.run(cut, batch), CALLS + 1)[1:]

    calls = {f"{name} {cut}": call(engine, cut) for name, engine in engines.items() for cut in Cut}
    spreads = interleave(calls, rounds=rounds)
    return {name: {cut: spreads[f"{name} {cut}"] for cut in Cut} for name in engines}


def _report_speed(part: Part, bundle: Bundle, engines: dict[str, Engine], rounds: int) -> None:
    rows = []
    for photos in ROWS:
        times = _compare(bundle, engines, rounds=rounds, rows=photos)
        base, int8 = times.values()
        for cut in Cut:
            ratio = int8[cut].median / base[cut].median
            cells = (str(cuts[cut].scaled(1 / photos)) for cuts in (base, int8))
            rows.append((str(photos), f"`{cut.value}`", *cells, f"{ratio:.2f}"))
            if cut is Cut.EXPLAIN:
                title = f"int8: `explain` in times of the other precision, {photos} photo(s)"
                part.targets.append(Target(title, ratio, MAY_TAKE))
    titles = (f"{name}, ms a photo" for name in engines)
    part.tables.append(Table(("photos in a call", "cut", *titles, "ratio"), rows))
