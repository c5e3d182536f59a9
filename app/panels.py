"""One explanation as the API returns it: figures, numbers, and the picture over the photo."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import heatmaps, images, overlay
from app.evidence import CURVE_THRESHOLDS, Evidence, MethodAtLayers
from app.heatmaps import Heatmap
from app.schemas import (
    BoxIoU,
    Curve,
    EvidenceQuery,
    Explanation,
    HeatmapData,
    ImageInfo,
    Localization,
    Oracle,
    Prediction,
)

__all__ = ["Panel", "draw", "make", "mask", "numbers", "values_at"]

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Panel:
    """An explanation's figures, and what it is drawn from.

    Attributes:
        explanation: where the evidence lies.
        localization: how that agrees with the request's boxes; None without.
        evidence: its heatmap.
    """

    explanation: Explanation
    localization: Localization | None
    evidence: Evidence


def make(
    evidence: Evidence,
    spec: MethodAtLayers,
    photo: ImageInfo,
    boxes: Sequence[images.Box],
    *,
    versus: Prediction | None,
    curve: bool,
) -> Panel:
    """An explanation's figures.

    Args:
        evidence: of `spec`.
        spec: the method and its layers.
        photo: the upright photo's size.
        boxes: the request's, inside the photo.
        versus: the class explained against.
        curve: whether to try other thresholds on the best of the boxes.
    """
    explanation = Explanation(
        method=spec.method,
        layers=list(spec.layer_names),
        versus=versus,
        rule=evidence.rule,
        threshold=evidence.threshold,
        box=evidence.box(photo.width, photo.height),
        peak=evidence.peak(photo.width, photo.height),
        status=evidence.heatmap.status,
    )
    return Panel(explanation, _localize(explanation, evidence, photo, boxes, curve), evidence)


def values_at(
    size: tuple[int, int] | None,
    heatmap: Heatmap,
    enlarged: Map | None,
    out: Map | None = None,
) -> Map:
    """A heatmap's values at the size at which they are wanted.

    Args:
        size: width and height, pixels; None: its map's.
        heatmap: at its map's size.
        enlarged: the same at the model's input size, `[S, S]`, from where overlays are made; None
            where there is no evidence.
        out: what they are written into; see `heatmaps.resize`.

    Returns:
        float32 `[h, w]`, 0..1; all zero unless the heatmap's status is `ok`.
    """
    if size is None:
        height, width = heatmap.values.shape
        return heatmaps.resize(heatmap.values, width, height, out)
    return heatmaps.resize(heatmap.values if enlarged is None else enlarged, *size, out)


def numbers(values: Map) -> HeatmapData:
    """A heatmap's values, float32 `[h, w]`, for JSON."""
    height, width = values.shape
    data = base64.b64encode(np.ascontiguousarray(values, "<f4").data).decode("ascii")
    return HeatmapData(height=height, width=width, data=data)


def mask(panel: Panel, width: int, height: int) -> Pixels:
    """The heatmap alone, `round(255 * values)`: uint8 `[height, width]`."""
    heatmap, enlarged = panel.evidence.heatmap, panel.evidence.values
    return overlay.levels(values_at((width, height), heatmap, enlarged))


def draw(
    panel: Panel,
    pixels: Pixels,
    query: EvidenceQuery,
    photo: ImageInfo,
    boxes: Sequence[images.Box],
) -> Pixels:
    """Heatmap and boxes over the scaled photo.

    Args:
        panel: what to draw.
        pixels: the scaled photo, uint8 RGB `[h, w, 3]`; left as it is.
        query: for the colours.
        photo: the upright photo's size, which boxes are in pixels of.
        boxes: the request's.

    Returns:
        uint8 RGB `[h, w, 3]`.
    """
    height, width = pixels.shape[:2]
    values = panel.evidence.values
    if values is not None:
        values = heatmaps.resize(values, width, height)
    picture = overlay.render(pixels, values, colormap=query.colormap, alpha=query.alpha)

    def scaled(box: images.Box) -> images.Box:
        return images.scale_box(box, (photo.width, photo.height), (width, height))

    own = panel.explanation.box
    overlay.draw_boxes(
        picture,
        reference=[scaled(box) for box in boxes],
        own=scaled(own) if own else None,
    )
    return picture


def _localize(
    explanation: Explanation,
    evidence: Evidence,
    photo: ImageInfo,
    boxes: Sequence[images.Box],
    curve: bool,
) -> Localization | None:
    """Compare the explanation's box and heatmap with the request's boxes."""
    if not boxes:
        return None
    own = explanation.box
    scored = [BoxIoU(box=box, iou=heatmaps.iou(box, own) if own else 0.0) for box in boxes]
    best = max(scored, key=lambda box: box.iou)
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
        all=scored,
        curve=_curve(evidence, photo, best.box) if curve else None,
    )


def _curve(evidence: Evidence, photo: ImageInfo, reference: images.Box) -> Curve:
    """The IoU with a box of the request at each of `CURVE_THRESHOLDS`."""
    boxes = evidence.boxes(CURVE_THRESHOLDS, photo.width, photo.height)
    ious = [heatmaps.iou(reference, box) if box else 0.0 for box in boxes]
    best = int(np.argmax(ious))
    return Curve(
        thresholds=list(CURVE_THRESHOLDS),
        ious=ious,
        oracle=Oracle(threshold=CURVE_THRESHOLDS[best], iou=ious[best]),
    )
