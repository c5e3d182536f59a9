"""Tables of breeds: accuracy, calibration, confusion, and the boxes of each breed."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.bundle import Method, Rule
from training.evaluation.schema import Evaluation, PhotoResult
from training.report.tables import Table
from training.report.wording import heatmap_name, interval_text, shows_top5

__all__ = [
    "MATRIX",
    "Cell",
    "Matrix",
    "accuracy",
    "breeds",
    "confusion_matrix",
    "confusions",
    "reliability",
    "served_ious",
]

MATRIX = 20
"""Breeds up to which the confusion matrix is shown; of more, the most confused pairs."""

_TALL = 30
"""Breeds from which their table scrolls."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix: photos, and their share of the true breed's photos."""

    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Matrix:
    """Photos by true (row) and predicted breed (column).

    Attributes:
        caption: shown above it.
        names: of the columns.
        rows: each with its breed's name and a cell for each column.
    """

    caption: str
    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def accuracy(evaluation: Evaluation) -> Table:
    """Accuracy and, where the model is calibrated, how far probabilities can be trusted."""
    rows = [("top-1 accuracy", f"{evaluation.top1:.3f} {interval_text(evaluation.top1_interval)}")]
    if shows_top5(evaluation):
        top5 = f"{evaluation.top5:.3f} {interval_text(evaluation.top5_interval)}"
        rows.append(("top-5 accuracy", top5))
    if evaluation.ece is not None:
        rows.append(("expected calibration error", f"{evaluation.ece:.3f}"))
    if evaluation.confidence_ok is not None:
        rows.append(("share of answers with confidence ok", f"{evaluation.confidence_ok:.3f}"))
    return Table("Over all photos", ("figure", "value"), rows)


def confusions(evaluation: Evaluation) -> Table | None:
    """The most confused breeds; None where every photo is right."""
    if not evaluation.most_confused:
        return None
    return Table(
        "Most confused: photos of one breed that are taken for another",
        ("breed", "taken for", "photos", "share of the breed's photos"),
        [
            (pair.true, pair.predicted, str(pair.count), f"{pair.share:.3f}")
            for pair in evaluation.most_confused
        ],
    )


def confusion_matrix(evaluation: Evaluation) -> Matrix | None:
    """Photos by true and predicted breed; None for many breeds, and where it was not measured."""
    counts = evaluation.confusion
    if counts is None:
        return None
    predicted = dict.fromkeys(name for row in counts.values() for name in row)
    names = list(dict.fromkeys([*counts, *predicted]))
    if len(names) > MATRIX:
        return None
    rows = []
    for name, row in counts.items():
        photos = sum(row.values())
        rows.append((name, [Cell(row.get(n, 0), row.get(n, 0) / photos) for n in names]))
    return Matrix("Photos by true breed (row) and the breed they are taken for", names, rows)


def reliability(evaluation: Evaluation) -> Table | None:
    """Accuracy by stated probability; None where that was not measured."""
    if evaluation.reliability is None:
        return None
    return Table(
        "Photos by the stated probability of the likeliest breed",
        ("probability", "photos", "mean probability", "accuracy"),
        [
            (
                f"{share.low:.2f} to {share.high:.2f}",
                str(share.photos),
                _number(share.confidence),
                _number(share.accuracy),
            )
            for share in evaluation.reliability
        ],
    )


def breeds(evaluation: Evaluation) -> Table:
    """Accuracy of every breed, and mean IoUs by the rule that is served."""
    served = served_ious(evaluation)
    rows = []
    for name, breed in sorted(evaluation.breeds.items(), key=lambda item: -item[1].top1):
        row = [name, str(breed.photos), f"{breed.top1:.3f}"]
        if served:
            ious = [by_breed.get(name) for by_breed in served.values()]
            baselines = breed.mean_iou_baselines
            constant = None if baselines is None else baselines.constant_box
            row += [str(breed.photos_with_boxes), *map(_number, ious), _number(constant)]
            row.append(_verdict(ious[-1], constant))
        rows.append(tuple(row))
    head = ["breed", "photos", "accuracy"]
    if served:
        head.append("with boxes")
        head += [f"mean IoU, {_served_name(evaluation, method)}" for method in served]
        head += ["mean IoU, constant box", "Grad-CAM beside the constant box"]
    return Table(
        "By breed, the most accurate first"
        + ("; mean IoU at the last layer by the rule that is served" if served else ""),
        tuple(head),
        rows,
        # accuracy; then the mean IoUs, which follow the number of photos with boxes
        bars=frozenset({2, *range(4, 4 + len(served) + 1)} if served else {2}),
        tall=len(rows) >= _TALL,
    )


def served_ious(evaluation: Evaluation) -> dict[Method, dict[str, float]]:
    """Mean IoU of CAM's and Grad-CAM's box by breed, at the last layer by the service's rule.

    Returns:
        By method, then by breed, Grad-CAM last; empty where no photo has a box.
    """
    localization = evaluation.localization
    if localization is None:
        return {}
    photos: dict[str, list[PhotoResult]] = {}
    for photo in evaluation.per_photo:
        photos.setdefault(photo.breed, []).append(photo)

    def mean(method: Method, results: Sequence[PhotoResult]) -> float:
        fused = localization.rule(method) is Rule.FUSED
        ious = [(photo.fused if fused else photo.iou)[method]["last"] for photo in results]
        return sum(ious) / len(ious)

    return {
        method: {breed: mean(method, results) for breed, results in photos.items()}
        for method in (Method.CAM, Method.GRADCAM)
        if localization.served(method) is not None
    }


def _served_name(evaluation: Evaluation, method: Method) -> str:
    localization = evaluation.localization
    return heatmap_name(method, rule=None if localization is None else localization.rule(method))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _verdict(ours: float | None, constant: float | None) -> str:
    """`better by 0.100`: of the two as they are shown, and without an interval."""
    if ours is None or constant is None:
        return ""
    difference = round(ours, 3) - round(constant, 3)
    if abs(difference) < 0.0005:
        return "equal"
    return f"{'better' if difference > 0 else 'worse'} by {abs(difference):.3f}"
