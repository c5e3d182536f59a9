"""A trial of 8-bit integers: accuracy and speed beside the model as it is served."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app import bundle as bundles
from app import images
from app.bundle import Bundle
from app.engines import Batch, Cut, Engine, create, output_names
from app.engines.openvino import CORE
from app.settings import Settings
from benchmarks import environments, pictures
from benchmarks.cuts import ROWS
from benchmarks.protocol import Worker
from benchmarks.results import Part, Table, Target
from benchmarks.timing import Spread, interleave, timed
from training.data.dataset import Dataset
from training.data.loading import load_for_model
from training.evaluation.evaluate import evaluate

__all__ = ["run"]

CALIBRATION_PHOTOS = 300

MAY_FALL = 0.005
"""The loss of top-1 accuracy or mean IoU from which on int8 is not worth shipping."""


def run(rounds: int, data_dir: Path) -> Part:
    """Quantise on training photos, evaluate on the test split.

    Args:
        rounds: timed calls of each cut.
        data_dir: a prepared TFDS directory with Stanford Dogs.
    """
    bundle = bundles.load(Settings().model_path)
    card = bundle.card
    dataset = load_for_model("stanford_dogs", data_dir, card.labels, config={})
    # The last layer alone: there the maps need no convolution backwards.
    shallow = replace(bundle, card=card.model_copy(update={"layers": card.layers[-1:]}))
    target = environments.CACHE / "int8.xml"
    _quantise(shallow, dataset, target)
    served: Engine = create(shallow, engine="openvino", device="cpu")
    trial: Any = create(shallow, engine="openvino", device="cpu")
    trial._model = CORE.read_model(str(target))
    engines: dict[str, Engine] = {served.info.precision: served, "int8": trial}
    figures = {
        name: _figures(evaluate(shallow, engine, dataset.test).summary())
        for name, engine in engines.items()
    }
    part = Part(
        "A trial of 8-bit integers",
        "Post-training quantisation by NNCF (mixed preset), calibrated on "
        f"{CALIBRATION_PHOTOS} training photos, measured on {len(dataset.test)} test photos with "
        "the thresholds of the model as it is. A trial, and no setting of the service: it holds "
        "the last layer alone, would be a second file beside each model, and what it takes away "
        "differs from one training to the next. Of an earlier shipped model it took more than a "
        "point of accuracy.",
        figures=figures,
    )
    _report_accuracy(part, figures)
    _report_speed(part, shallow, engines, rounds)
    return part


def _quantise(bundle: Bundle, dataset: Dataset, target: Path) -> None:
    indices = np.random.default_rng(0).permutation(len(dataset.train))[:CALIBRATION_PHOTOS]
    spec = bundle.card.input
    photos = [
        images.squash(
            images.decode(dataset.train[i].read(), side=images.enough_for(spec.size)).pixels,
            spec.size,
            spec.resize,
        )
        for i in indices.tolist()
    ]
    path = target.with_suffix(".npy")
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.stack(photos))
    with Worker("benchmarks.peers.nncf", python=environments.ensure("nncf")) as worker:
        worker.ask(
            "quantise",
            model=str(bundle.path),
            outputs=output_names(bundle.card, Cut.EXPLAIN),
            photos=str(path),
            target=str(target),
        )


def _figures(summary: dict[str, Any]) -> dict[str, float]:
    """The figures to compare, out of the summary of an evaluation."""
    ious = {
        f"mean IoU, {method}": by_layers["last"]
        for method, by_layers in summary["mean_iou"].items()
    }
    return {"top-1": summary["top1"], **ious}


def _report_accuracy(part: Part, figures: dict[str, dict[str, float]]) -> None:
    base, trial = figures.values()
    part.tables.append(
        Table(
            ("", *figures, "difference"),
            [
                (
                    name,
                    f"{base[name]:.4f}",
                    f"{trial[name]:.4f}",
                    f"{trial[name] - base[name]:+.4f}",
                )
                for name in base
            ],
        )
    )
    for name in ("top-1", "mean IoU, cam", "mean IoU, gradcam"):
        if name in base:
            title = f"int8: what {name} loses"
            part.targets.append(Target(title, base[name] - trial[name], MAY_FALL))


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
        return lambda: timed(lambda: engine.run(cut, batch))

    calls = {f"{name} {cut}": call(engine, cut) for name, engine in engines.items() for cut in Cut}
    spreads = interleave(calls, rounds=rounds)
    return {name: {cut: spreads[f"{name} {cut}"] for cut in Cut} for name in engines}


def _report_speed(part: Part, bundle: Bundle, engines: dict[str, Engine], rounds: int) -> None:
    rows = []
    for photos in ROWS:
        times = _compare(bundle, engines, rounds=rounds, rows=photos)
        base, trial = times.values()
        for cut in (Cut.PREDICT, Cut.EXPLAIN):
            ratio = f"{trial[cut].median / base[cut].median:.2f}"
            cells = (str(cuts[cut].scaled(1 / photos)) for cuts in (base, trial))
            rows.append((str(photos), f"`{cut.value}`", *cells, ratio))
    titles = (f"{name}, ms a photo" for name in engines)
    part.tables.append(Table(("photos in a call", "cut", *titles, "ratio"), rows))
