"""From a raw map to a heatmap, a box and figures. Arrays alone: no HTTP, no model, no photo.

raw map [h, w]  --min_max, relu_max-->  heatmap 0..1 [h, w]  --fuse-->  one of several layers
    --resize-->  [S, S]  --locate-->  box  --iou, energy_in_box, peak_in_box-->  figures
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "Heatmap",
    "blend",
    "boxes_at",
    "energy_in_box",
    "from_maps",
    "fuse",
    "iou",
    "locate",
    "locate_all",
    "min_max",
    "overlap",
    "peak",
    "peak_in_box",
    "relu_max",
    "resize",
]

Map = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

_FLAT = 1e-5
"""Relative spread below which a map counts as constant: float32 noise, not evidence."""


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A normalised map.

    Attributes:
        values: float32 `[h, w]` in 0..1; all zero unless `status` is `ok`.
        status: `ok`; `empty`, no positive evidence; `constant`; or `nonfinite`.
    """

    values: Map
    status: Literal["ok", "empty", "constant", "nonfinite"]


def min_max(raw: npt.NDArray[Any]) -> Heatmap:
    """Normalise a signed map, CAM's, by its least and greatest value."""
    return _normalise(raw, float(raw.min()) if raw.size else 0.0)


def relu_max(raw: npt.NDArray[Any]) -> Heatmap:
    """Normalise a map of the Grad-CAM family: negative values to zero, then by its greatest."""
    return _normalise(raw, 0.0)


def _normalise(raw: npt.NDArray[Any], floor: float) -> Heatmap:
    """`max(raw - floor, 0) / (max(raw) - floor)`, or why there is no heatmap."""
    nothing = np.zeros(raw.shape, np.float32)
    if not np.isfinite(raw).all():
        return Heatmap(nothing, "nonfinite")
    top, bottom = float(raw.max()), float(raw.min())
    if top <= 0:
        return Heatmap(nothing, "empty")
    if top - bottom <= _FLAT * top:
        return Heatmap(nothing, "constant")
    # In float64: in float32, top - floor may overflow.
    values = np.maximum(raw.astype(np.float64) - floor, 0) / (top - floor)
    return Heatmap(values.astype(np.float32), "ok")


def from_maps(maps: Sequence[npt.NDArray[Any]], *, signed: bool) -> Heatmap:
    """One method's raw maps, at one layer or several, to its heatmap.

    Args:
        maps: raw, `[h, w]` each, sizes may differ.
        signed: whether to normalise by `min_max` (CAM), else by `relu_max`.
    """
    normalise = min_max if signed else relu_max
    return fuse([normalise(raw) for raw in maps])


def fuse(heatmaps: Sequence[Heatmap]) -> Heatmap:
    """The mean of several layers' heatmaps at the finest of their sizes, scaled to a maximum of 1.

    Layers without evidence count as zero; with one heatmap, it is returned as it is.
    """
    if len(heatmaps) == 1:
        return heatmaps[0]
    height, width = max(heatmap.values.shape for heatmap in heatmaps)  # the finest, by height
    for status in ("nonfinite", "empty", "constant"):
        agree = [heatmap.status == status for heatmap in heatmaps]
        if all(agree) or (status == "nonfinite" and any(agree)):
            return Heatmap(np.zeros((height, width), np.float32), status)
    mean = np.mean([resize(heatmap.values, width, height) for heatmap in heatmaps], axis=0)
    return relu_max(mean)


def blend(values: Map, foreground: Map, weight: float) -> Map:
    """`(1 - weight) * values + weight * foreground`, of heatmaps of one size."""
    return (1 - np.float32(weight)) * values + np.float32(weight) * foreground


def resize(values: Map, width: int, height: int, out: Map | None = None) -> Map:
    """Bilinear, with pixel centres at half-integers and the border repeated.

    Args:
        values: float32 `[h, w]`.
        width: of the result.
        height: likewise.
        out: float32 `[height, width]` in C order, to write the result into; default: a new array,
            or `values` where the size is theirs.
    """
    if values.shape != (height, width):
        return cv2.resize(values, (width, height), out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
    if out is None:
        return values
    np.copyto(out, values)
    return out


def locate(values: Map, threshold: float) -> Box | None:
    """The box around the largest 8-connected region of values at or over `threshold`.

    Args:
        values: a heatmap, not negative, `[h, w]`; resizing may have taken its maximum under 1.
        threshold: share of that maximum, over 0 to 1.

    Returns:
        xmin, ymin, xmax, ymax in the heatmap's pixels, far edges exclusive; None when the
        heatmap is all zero.
    """
    top = values.max()
    if top <= 0:
        return None
    mask = (values >= np.float32(threshold) * top).view(np.uint8)
    (x, y, width, height), _ = _largest(mask)
    return _box(x, y, width, height)


def locate_all(values: Map, thresholds: Sequence[float]) -> list[Box | None]:
    """The boxes of `locate` at several thresholds, found in a fraction of the time.

    Args:
        values: a heatmap, not negative, `[h, w]`.
        thresholds: rising, shares of the heatmap's maximum, up to 1.

    Returns:
        As many boxes in the heatmap's pixels, far edges exclusive; None when it is all zero.
    """
    top = values.max()
    if top <= 0:
        return [None] * len(thresholds)
    return list(boxes_at(values, np.asarray(thresholds, np.float32) * top))


def boxes_at(values: Map, levels: npt.NDArray[np.float32]) -> list[Box]:
    """The boxes around the largest 8-connected regions of values at or over rising levels.

    What a level leaves lies within what a lower one left, so only that part is searched.

    Args:
        values: `[h, w]`.
        levels: float32 `[N]`, rising, none over the greatest value.

    Returns:
        N boxes in pixels, far edges exclusive.
    """
    boxes: list[Box] = []
    left = upper = 0  # where `part` lies in `values`
    part = values
    for level in levels:
        mask = (part >= level).view(np.uint8)
        (x, y, width, height), alone = _largest(mask)
        boxes.append(_box(left + x, upper + y, width, height))
        if not alone:
            x, y, width, height = cv2.boundingRect(mask)  # of all regions
        left, upper = left + x, upper + y
        part = part[y : y + height, x : x + width]
    return boxes


def _largest(mask: npt.NDArray[np.uint8]) -> tuple[Sequence[int], bool]:
    """The largest 8-connected region of a mask that has one: x, y, width, height; if it is alone.

    Outlines are followed from pixel to pixel, which takes a quarter of the time of labelling every
    pixel. One of B steps that encloses the area A, measured between the pixels' middles, has
    A + B / 2 + 1 pixels on it and inside (Pick's theorem). A hole's outline runs on the pixels of
    the region around it, so that A - B / 2 + 1 pixels are inside. Steps go to any of eight
    neighbours, so that A is B^2 / 8 at most: short outlines need not be measured.
    """
    # `links`, [outlines, 4]: the next and the previous outline of the same kind, the first hole
    # inside, and the region around; -1 for none. Regions have none around them.
    outlines, (links,) = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    largest: Sequence[int] = cv2.boundingRect(outlines[0])
    if len(outlines) == 1:
        return largest, True
    most = 0.0
    following, _, inner, parent = links.T.tolist()
    regions = [index for index in range(len(outlines)) if parent[index] < 0]
    for index in sorted(regions, key=lambda index: -len(outlines[index])):
        steps = len(outlines[index])
        if steps * steps / 8 + steps / 2 + 1 < most:
            break  # the longest outlines come first: no later one can hold more
        pixels = _pixels(outlines[index], 1)
        hole = inner[index]
        while hole >= 0:
            pixels -= _pixels(outlines[hole], -1)
            hole = following[hole]
        if pixels >= most:
            region = cv2.boundingRect(outlines[index])
            # Of equal ones the uppermost, then the leftmost, however the mask is cut.
            if pixels > most or _place(region) < _place(largest):
                most, largest = pixels, region
    return largest, False


def _box(x: int, y: int, width: int, height: int) -> Box:
    return float(x), float(y), float(x + width), float(y + height)


def _place(region: Sequence[int]) -> tuple[int, ...]:
    x, y, width, height = region
    return y, x, width, height


def _pixels(outline: npt.NDArray[Any], side: int) -> float:
    """Pixels inside an outline: with its own for a `side` of 1, without for -1."""
    steps = len(outline) if len(outline) > 1 else 0  # of a single pixel, there are none
    return cv2.contourArea(outline) + side * steps / 2 + 1


def peak(values: Map) -> tuple[float, float]:
    """x, y of the middle of the greatest value's cell, in the heatmap's pixels."""
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    return float(column) + 0.5, float(row) + 0.5


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    return common / (_area(a) + _area(b) - common) if common else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def energy_in_box(values: Map, box: Box) -> float:
    """Share of a heatmap's sum that lies in a box; cells on its edge count by the part inside.

    Wang et al., Score-CAM, 2020 (energy-based pointing game).

    Args:
        values: a heatmap, `[h, w]`, not negative.
        box: in the heatmap's pixels.

    Returns:
        0..1; 0 where the heatmap is all zero.
    """
    total = float(values.sum(dtype=np.float64))
    if total <= 0:
        return 0.0
    height, width = values.shape
    across = overlap(width, box[0], box[2])
    down = overlap(height, box[1], box[3])
    # down [h] @ values [h, w] @ across [w]: each cell by its share inside. Summed in another order
    # than the total, the whole can come out an ulp over it.
    return min(1.0, float(down @ values.astype(np.float64) @ across) / total)


def overlap(cells: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """How much of each of `cells` unit cells lies between `low` and `high`: float64 `[cells]`."""
    edges = np.arange(cells + 1, dtype=np.float64)
    inside: npt.NDArray[np.float64] = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.clip(inside, 0.0, 1.0)


def peak_in_box(point: tuple[float, float], box: Box) -> bool:
    """Whether a point lies in a box, edges included."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
