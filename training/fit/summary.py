"""Accuracy of a finished run on its validation photos: by class, and the most confused pairs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.bundle import Label
from training.data.batches import inference_batches
from training.files import atomic_write, replacement
from training.fit.checkpoints import writing
from training.fit.run import Run

__all__ = ["confusion", "figures", "plot", "summarise", "table"]

PAIRS = 10
"""Number of most confused pairs that are kept."""

_MOST_COUNTED = 25
"""Number of classes up to which the picture's cells have room for their counts."""

Counts = npt.NDArray[np.int64]


def summarise(run: Run) -> str:
    """Measure the best epoch's weights on the validation split.

    Writes `summary.json` and `confusion.png` into the run's directory. Photos are decoded and
    squashed as in the service. The run's model keeps these weights.

    Returns:
        The figures as text for a terminal.
    """
    run.model.load_weights(run.directory / "best.weights.h5")
    truth: list[int] = []
    predicted: list[int] = []
    batches = inference_batches(
        run.dataset.validation, size=run.config.input_size, batch_size=run.config.batch_size
    )
    for photos, labels in batches:
        predicted += np.argmax(np.asarray(run.predict(photos)), axis=-1).tolist()
        truth += np.asarray(labels).tolist()
    counts = confusion(truth, predicted, len(run.dataset.labels))
    summary = figures(counts, run.dataset.labels)
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    with writing(run.directory):
        atomic_write(run.directory / "summary.json", text)
        with replacement(run.directory / "confusion.png") as draft:
            plot(counts, run.dataset.labels, draft)
    return table(summary)


def confusion(truth: Sequence[int], predicted: Sequence[int], classes: int) -> Counts:
    """Count photos by true class (rows) and predicted class (columns): int64 `[C, C]`."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(truth, int), np.asarray(predicted, int)), 1)
    return counts


def figures(counts: Counts, labels: Sequence[Label]) -> dict[str, Any]:
    """Figures of a confusion matrix, ready for JSON.

    Args:
        counts: `[C, C]`, see `confusion`.
        labels: of the classes.

    Returns:
        `accuracy` over all photos; `mean_class_accuracy` over the classes that have photos; the
        figures by class; the most confused pairs, those with the most photos first; the counts.
    """
    photos, right = counts.sum(axis=1), counts.diagonal()
    accuracies = [float(r / n) if n else None for r, n in zip(right, photos, strict=True)]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    wrong = counts - np.diag(right)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]  # cells of the flat matrix
    pairs = [divmod(int(index), len(labels)) for index in order]
    return {
        "split": "validation",
        "photos": int(photos.sum()),
        "accuracy": _rounded(float(right.sum() / photos.sum()) if photos.any() else None),
        "mean_class_accuracy": _rounded(float(np.mean(known)) if known else None),
        "classes": [
            {
                "label": label.name,
                "synset": label.synset,
                "photos": int(photos[index]),
                "right": int(right[index]),
                "accuracy": _rounded(accuracies[index]),
            }
            for index, label in enumerate(labels)
        ],
        "most_confused": [
            {
                "label": labels[true].name,
                "taken_for": labels[taken].name,
                "photos": int(wrong[true, taken]),
                "share": _rounded(float(wrong[true, taken] / photos[true])),
            }
            for true, taken in pairs
            if wrong[true, taken]
        ],
        "confusion": counts.tolist(),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def table(summary: dict[str, Any]) -> str:
    """The figures as text: the classes, worst first, then the most confused pairs."""
    rows = sorted(
        summary["classes"],
        key=lambda row: (row["accuracy"] is None, row["accuracy"], row["label"]),
    )
    width = max(len("class"), *(len(row["label"]) for row in rows))
    lines = [
        f"{summary['split']}: accuracy {_shown(summary['accuracy'])} "
        f"over {summary['photos']} photos, "
        f"mean of the classes {_shown(summary['mean_class_accuracy'])}",
        "",
        f"{'class':{width}}  photos  right  accuracy",
        *(
            f"{row['label']:{width}}  {row['photos']:6}  {row['right']:5}  "
            f"{_shown(row['accuracy']):>8}"
            for row in rows
        ),
    ]
    if summary["most_confused"]:
        lines += ["", "most confused:"]
        lines += [
            f"  {pair['label']}, taken for {pair['taken_for']}: {pair['photos']} photos "
            f"({pair['share']:.0%})"
            for pair in summary["most_confused"]
        ]
    return "\n".join(lines)


def _shown(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.3f}"


def plot(counts: Counts, labels: Sequence[Label], path: Path) -> None:
    """Draw the confusion matrix, each row as shares of its class's photos.

    The picture grows with the classes, so that each of 120 can be read.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import colors, pyplot

    classes = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(5.0, 0.17 * classes + 3)
    figure, axis = pyplot.subplots(figsize=(side + 0.6, side), layout="constrained")
    # A square root, so that one photo among many still shows.
    picture = axis.imshow(shares, cmap="Blues", norm=colors.PowerNorm(0.5, vmin=0, vmax=1))
    figure.colorbar(picture, ax=axis, shrink=0.5, label="share of the class's photos")
    names = [label.name for label in labels]
    font = 9 if classes <= _MOST_COUNTED else 7
    axis.set_xticks(range(classes), names, rotation=90, fontsize=font)
    axis.set_yticks(range(classes), names, fontsize=font)
    axis.set(xlabel="taken for", ylabel="class")
    if classes <= _MOST_COUNTED:
        for (true, taken), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[true, taken] > 0.3 else "black"
                axis.text(
                    taken, true, str(count), ha="center", va="center", color=colour, fontsize=7
                )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
