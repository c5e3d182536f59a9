"""The charts of a report: which figures are drawn, and what is said below."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.bundle import Method, Rule
from training.evaluation.schema import Evaluation
from training.report import plots
from training.report.wording import heatmap_name

__all__ = ["Chart", "curves", "histograms", "reliability"]

_COMPARED = (Method.CAM, Method.GRADCAM)
"""The methods that have a histogram."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot.

    Attributes:
        name: of its file, without `.svg`.
        svg: the element.
        caption: shown below it.
        heading: shown above it, where it is one of several.
    """

    name: str
    svg: str
    caption: str
    heading: str = ""


def histograms(evaluation: Evaluation) -> Iterator[Chart]:
    """Photos by the IoU of CAM's and of Grad-CAM's box; none where no photo has a box."""
    localization, photos = evaluation.localization, evaluation.per_photo
    if localization is None:
        return
    constant = localization.baselines.constant_box.mean_iou.value
    for method in _COMPARED:
        served = localization.served(method)
        if served is None:
            continue
        rule = localization.rule(method)
        ious = {Rule.HEATMAP: [photo.iou[method]["last"] for photo in photos]}
        if rule is Rule.FUSED:
            ious[Rule.FUSED] = [photo.fused[method]["last"] for photo in photos]
        heatmap, name = heatmap_name(method, "last"), f"iou-{method.value}"
        title = (
            f"Histogram of the IoU of {heatmap} over {len(photos)} photos; mean "
            f"{served.mean_iou.value:.3f} by the rule {rule.value}, mean of the constant box "
            f"{constant:.3f}."
        )
        yield Chart(
            name,
            plots.histogram(name, title, ious, constant),
            f"{heatmap}: photos by the IoU of their box. Dashed: means. Dotted: the constant box's "
            "mean.",
        )


def curves(evaluation: Evaluation) -> Iterator[Chart]:
    """Mean IoU by threshold, a chart a method; none where no photo has a box."""
    if evaluation.localization is None:
        return
    constant = evaluation.localization.baselines.constant_box.mean_iou.value
    for method, sets in evaluation.curves.items():
        name, heatmap = f"curves-{method.value}", heatmap_name(method)
        title = (
            f"Mean IoU of {heatmap}'s boxes over the threshold; the table below has each curve's "
            "threshold in use and its best one."
        )
        yield Chart(name, plots.curves(name, title, sets, constant), "", heading=heatmap)


def reliability(evaluation: Evaluation) -> Chart | None:
    """Accuracy by stated probability; None where that was not measured."""
    if evaluation.reliability is None:
        return None
    title = (
        f"Reliability diagram: accuracy over the stated probability for {evaluation.photos} "
        "photos; the table beside it has the figures."
    )
    return Chart(
        "reliability",
        plots.reliability("reliability", title, evaluation.reliability),
        "Each dot stands at the mean probability of its bin. Below the dashed line the model is "
        "overconfident, above it underconfident; a bin of few photos says little. Lower plot: "
        "photos in each bin.",
    )
