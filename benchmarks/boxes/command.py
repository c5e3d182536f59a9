"""The subcommand: measure, print, and write the tables into `docs/localization.md`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app import bundle as bundles
from app import engines, images
from app.bundle import Bundle
from app.engines import Engine
from app.images import Box
from app.progress import bar
from app.settings import Settings
from benchmarks import document
from benchmarks.boxes import maps
from benchmarks.boxes.crossfit import cross_fitted, halves
from benchmarks.boxes.trials import Trial, trials
from benchmarks.protocol import PROJECT
from benchmarks.results import Table
from training.data.dataset import Example
from training.data.loading import load_for_model
from training.evaluation.metrics import CONSTANT_BOX, FULL_FRAME, best_iou, estimate, mean, resample
from training.evaluation.schema import Interval
from training.export.survey import choose

__all__ = ["BEGIN", "END", "main", "measure", "written"]

DOCUMENT = PROJECT / "docs" / "localization.md"

BEGIN = "<!-- `python -m benchmarks boxes` writes what follows -->"
END = "<!-- up to here -->"

SEED = 0
"""Seed of the halves, of the bootstrap samples and of the choice of photos."""

SAMPLE = 1200
"""Default number of photos: ten of each of 120 breeds."""

Ious = npt.NDArray[np.float64]


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        arguments: what follows `boxes` on the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks boxes", description=__doc__)
    parser.add_argument(
        "--data-dir",
        type=Path,
        required=True,
        help="a prepared TFDS directory with Stanford Dogs; its test split is not looked at",
    )
    parser.add_argument(
        "--model", type=Path, default=Settings().model_path, help="models/NAME or models/NAME/N"
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"at most N photos, drawn evenly by breed, and the tables are only printed (default: "
        f"{SAMPLE}, and the tables are written into the document)",
    )
    options = parser.parse_args(arguments)
    bundle = bundles.load(options.model)
    if not bundle.card.has_cam:
        parser.error(f"{options.model} has no CAM to compare with")
    dataset = load_for_model("stanford_dogs", options.data_dir, bundle.card.labels, config={})
    boxed = [example for example in dataset.train + dataset.validation if example.boxes]
    sample = choose(boxed, SAMPLE if options.limit is None else options.limit, SEED)
    if len(sample) < 2:
        parser.error("two photos with a box are the least")
    threads = Settings().threads
    engine = engines.create(
        bundle, engine="openvino", device="cpu", precision="float", threads=threads
    )
    text = measure(bundle, engine, sample, among=len(boxed), threads=threads)
    print(text)
    if options.limit is None:
        DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), text), encoding="utf-8")
        print(f"Wrote {DOCUMENT}", file=sys.stderr)


def written(document: str, text: str) -> str:
    """The document with `text` in place of what is between its marks.

    Raises:
        ValueError: the document lacks the marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the document has no place for the tables")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def measure(
    bundle: Bundle,
    engine: Engine,
    examples: Sequence[Example],
    *,
    among: int,
    threads: int = 0,
) -> str:
    """All tables, in Markdown.

    Args:
        bundle: a model version with CAM.
        engine: runs it, through OpenVINO.
        examples: photos of the training split, with a box each.
        among: number of photos that `examples` were drawn from.
        threads: for the inference; 0: one for each core.
    """
    half = halves(len(examples), SEED)
    raw = maps.raw_maps(maps.Photos(bundle, examples, half, threads), engine)
    layers, larger = maps.foreground_layers(bundle), maps.larger(bundle)
    sections = trials(bundle.card, layers, larger)
    all_trials = [trial for section in sections.values() for trial in section]
    size = bundle.card.input.size
    boxes = [[images.scale_box(box, (1, 1), (size, size)) for box in e.boxes] for e in examples]
    ious = {
        title: cross_fitted(table, half) for title, table in _ious(all_trials, raw, boxes).items()
    }
    head = (
        f"Measured with {bundle.card.name} version {bundle.card.version} ({engine.info.name} in "
        f"{engine.info.precision}) on {len(examples)} photos, drawn evenly by breed from the "
        f"{among} of the training split that have a box (validation photos included)."
    )
    tables = [_guesses(examples, ious["CAM"], ious["Grad-CAM"])]
    tables += [_table(title, section, ious) for title, section in sections.items()]
    return f"{head}\n\n" + "\n".join(
        f"**{table.caption}**\n\n{document.markdown(table)}" for table in tables
    )


def _ious(
    all_trials: Sequence[Trial],
    raw: tuple[Mapping[str, npt.NDArray[np.float32]], ...],
    boxes: Sequence[Sequence[Box]],
) -> dict[str, Ious]:
    """IoUs `[2, N, options]` by trial. The first axis is the half that the directions are from.

    Args:
        all_trials: the trials of all sections.
        raw: the maps, with the directions of either half.
        boxes: the true boxes of each photo, in pixels of the model's input.
    """
    measured = [trial for trial in all_trials if trial.options]

    def of_photo(index: int) -> list[Ious]:
        rows = [{name: maps[index] for name, maps in of_half.items()} for of_half in raw]
        return [
            np.stack([_of_row(trial, row, boxes[index]) for row in rows[: 1 + trial.learnt]])
            for trial in measured
        ]

    with ThreadPoolExecutor() as pool:
        runs = pool.map(of_photo, range(len(boxes)))
        photos = list(bar("boxes", runs, total=len(boxes)))
    ious: dict[str, Ious] = {}
    for number, trial in enumerate(measured):
        table = np.stack([photo[number] for photo in photos], axis=1)
        ious[trial.title] = np.broadcast_to(table, (2, *table.shape[1:]))
    for trial in all_trials:
        if trial.pooled:
            ious[trial.title] = np.concatenate([ious[title] for title in trial.pooled], axis=2)
    return ious


def _of_row(trial: Trial, row: Mapping[str, npt.NDArray[np.float32]], boxes: Sequence[Box]) -> Ious:
    """The IoUs of one photo, for each option at each threshold: `[options x thresholds]`."""
    return np.array(
        [
            best_iou(box, boxes)
            for option in trial.options
            for box in option.find(option.search(row), option.thresholds)
        ]
    )


def _guesses(examples: Sequence[Example], *plain: Ious) -> Table:
    """The baselines, which look at no photo."""
    guesses = {
        "the whole frame": FULL_FRAME,
        "a constant box (80 % x 90 %, centred)": CONSTANT_BOX,
    }
    rows = [
        _line(
            title,
            np.array([best_iou(guess, example.boxes) for example in examples]),
            plain,
            "",
        )
        for title, guess in guesses.items()
    ]
    return Table(_COLUMNS, rows, "What looks at no photo")


_COLUMNS = ("", "mean IoU", "to CAM", "to Grad-CAM", "service")


def _table(title: str, section: Sequence[Trial], ious: Mapping[str, Ious]) -> Table:
    plain = (ious["CAM"], ious["Grad-CAM"])
    rows = [
        _line(trial.title, ious[trial.title], plain, f"`{trial.served}`" if trial.served else "")
        for trial in section
    ]
    return Table(_COLUMNS, rows, title)


@cache
def _samples(count: int) -> Ious:
    return resample(count, seed=SEED)


def _line(title: str, ious: Ious, plain: tuple[Ious, ...], served: str) -> tuple[str, ...]:
    """A row: the mean IoU, and its differences from the plain rules with paired intervals."""
    weights = _samples(len(ious))
    estimates = [estimate(mean(ious), weights, mean(base)) for base in plain]
    differences = (
        "" if base is ious else _difference(figure.difference, figure.difference_interval)
        for figure, base in zip(estimates, plain, strict=True)
    )
    return title, f"{estimates[0].value:.3f}", *differences, served


def _difference(difference: float | None, edges: Interval | None) -> str:
    assert difference is not None
    assert edges is not None
    return f"{difference:+.3f} ({edges[0]:+.3f} to {edges[1]:+.3f})"
