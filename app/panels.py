"""One explanation as it is answered: told in figures, and drawn over the photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import heatmaps, images, overlay
from app.evidence import CURVE_THRESHOLDS, Evidence, MethodAtLayers
from app.schemas import (
    BoxIoU,
    CompareQuery,
    Curve,
    Explanation,
    ImageInfo,
    Localization,
    Oracle,
    Prediction,
)

__all__ = ["Panel", "draw", "make"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Panel:
    """An explanation's figures, and what it is drawn from.

    Attributes:
        explanation: where the evidence lies.
        localization: how that agrees with the boxes given; None without.
        evidence: its heatmap.
    """

    explanation: Explanation
    localization: Localization | None
    evidence: Evidence


def make(
    evidence: Evidence,
    layers: MethodAtLayers,
    photo: ImageInfo,
    given: Sequence[images.Box],
    *,
    versus: Prediction | None,
    curve: bool,
) -> Panel:
    """Tell an explanation.

    Args:
        evidence: of `layers`.
        layers: the method and its layers.
        photo: the upright photo's size.
        given: boxes inside the photo.
        versus: the class explained against.
        curve: whether to try other thresholds on the best of the boxes given.
    """
    explanation = Explanation(
        method=layers.method,
        layers=list(layers.layer_names),
        versus=versus,
        rule=evidence.rule,
        threshold=evidence.threshold,
        box=evidence.box(photo.width, photo.height),
        peak=evidence.peak(photo.width, photo.height),
        status=evidence.heatmap.status,
    )
    return Panel(explanation, _localize(explanation, evidence, photo, given, curve), evidence)


def draw(
    panel: Panel,
    pixels: Pixels,
    query: CompareQuery,
    photo: ImageInfo,
    given: Sequence[images.Box],
) -> Pixels:
    """Heatmap and boxes over the scaled photo, uint8 RGB `[h, w, 3]`."""
    height, width = pixels.shape[:2]
    values = panel.evidence.values
    if values is not None:
        values = heatmaps.resize(values, width, height)
    picture = overlay.render(pixels, values, colormap=query.colormap, alpha=query.alpha)

    def scaled(box: images.Box) -> images.Box:
        return images.scale_box(box, (photo.width, photo.height), (width, height))

    found = panel.explanation.box
    overlay.draw_boxes(
        picture,
        found=scaled(found) if found else None,
        given=[scaled(box) for box in given],
    )
    return picture


def _localize(
    explanation: Explanation,
    evidence: Evidence,
    photo: ImageInfo,
    given: Sequence[images.Box],
    curve: bool,
) -> Localization | None:
    """Hold the explanation's box and heatmap against the boxes given."""
    if not given:
        return None
    found = explanation.box
    every = [BoxIoU(box=box, iou=heatmaps.iou(box, found) if found else 0.0) for box in given]
    best = max(every, key=lambda each: each.iou)
    energy, hit = 0.0, False
    if evidence.values is not None and explanation.peak is not None:
        height, width = evidence.values.shape
        in_heatmap = images.scale_box(best.box, (photo.width, photo.height), (width, height))
        energy = heatmaps.energy_in_box(evidence.values, in_heatmap)
        hit = heatmaps.peak_in_box(explanation.peak, best.box)
    return Localization(
        box=best.box,
        iou=best.iou,
        energy_in_box=energy,
        peak_in_box=hit,
        all=every,
        curve=_curve(evidence, photo, best.box) if curve else None,
    )


def _curve(evidence: Evidence, photo: ImageInfo, given: images.Box) -> Curve:
    boxes = evidence.boxes(CURVE_THRESHOLDS, photo.width, photo.height)
    ious = [heatmaps.iou(given, box) if box else 0.0 for box in boxes]
    best = int(np.argmax(ious))
    return Curve(
        thresholds=list(CURVE_THRESHOLDS),
        ious=ious,
        oracle=Oracle(threshold=CURVE_THRESHOLDS[best], iou=ious[best]),
    )
