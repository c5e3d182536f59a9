"""The tiles that a report opens with: its main figures, each beside what it has to beat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.bundle import Method
from training.evaluation.schema import Estimate, Evaluation, Interval
from training.report.wording import comparison_text, heatmap_name, shows_top5

__all__ = ["Bar", "Tile", "tiles"]

_NO_ECE = "not measured: the model's probabilities are not calibrated, or not finite"
_NO_BOXES = "not measured: no photo of this split has a box"


@dataclass(frozen=True, slots=True)
class Bar:
    """A share, 0..1, with its name and as text."""

    name: str
    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Tile:
    """A main figure.

    Attributes:
        title: its name.
        value: the figure as text; empty where it was not measured.
        details: what belongs to it, line by line.
        bars: drawn below each other.
    """

    title: str
    value: str
    details: list[str]
    bars: Sequence[Bar] = ()


def tiles(evaluation: Evaluation) -> Iterator[Tile]:
    """Accuracy, calibration, and the boxes of `/gradcam` beside the constant box."""
    yield _accuracy(evaluation)
    yield _calibration(evaluation)
    yield _boxes(evaluation, "Mean IoU of the box", "mean_iou", ".3f")
    yield _boxes(evaluation, "Boxes with IoU ≥ 0.5", "gt_known_localization", ".1%")


def _accuracy(evaluation: Evaluation) -> Tile:
    details = [f"95 % interval {_percent(evaluation.top1_interval)}"]
    if shows_top5(evaluation):
        details.append(f"top-5: {evaluation.top5:.1%}")
    return Tile("Top-1 accuracy", f"{evaluation.top1:.1%}", details)


def _calibration(evaluation: Evaluation) -> Tile:
    title = "Calibration error (ECE)"
    if evaluation.ece is None:
        return Tile(title, "", [_NO_ECE])
    details = ["mean distance of stated probability and accuracy; 0 is best"]
    if evaluation.confidence_ok is not None:
        details.append(f"confidence ok: {evaluation.confidence_ok:.1%} of the photos")
    return Tile(title, f"{evaluation.ece:.3f}", details)


def _boxes(evaluation: Evaluation, title: str, figure: str, form: str) -> Tile:
    """A field of `BoxMetrics`, of Grad-CAM's box as served and of the constant box."""
    localization = evaluation.localization
    served = None if localization is None else localization.served(Method.GRADCAM)
    if localization is None or served is None:
        return Tile(title, "", [_NO_BOXES])
    ours: Estimate = getattr(served, figure)
    theirs: Estimate = getattr(localization.baselines.constant_box, figure)
    comparison = comparison_text(ours.difference, ours.difference_interval)
    return Tile(
        title,
        format(ours.value, form),
        [f"beside the constant box: {comparison}"],
        [
            Bar(heatmap_name(Method.GRADCAM), ours.value, format(ours.value, form)),
            Bar("constant box", theirs.value, format(theirs.value, form)),
        ],
    )


def _percent(edges: Interval) -> str:
    return f"{edges[0]:.1%} to {edges[1]:.1%}"
