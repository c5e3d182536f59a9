"""How well heatmaps and their boxes agree with true boxes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.images import Box
from training.evaluation.metrics import Floats, Statistic

__all__ = [
    "IOU_LEVELS",
    "SCORE_THRESHOLDS",
    "box_hits",
    "energy_in_area",
    "hits_at_levels",
    "ious",
    "is_flat",
    "levels",
    "max_box_acc",
    "pointing_hit",
]

Map = npt.NDArray[np.float32]

IOU_LEVELS = (0.3, 0.5, 0.7)
"""Where MaxBoxAccV2 calls a box right."""

SCORE_THRESHOLDS = tuple(np.arange(0, 1, 0.01).round(2).tolist())
"""0 to 0.99: the score maps' thresholds of which MaxBoxAccV2 takes the best."""

TOLERANCE = 15.0
"""Pixels of the photo by which a peak may miss in the pointing game."""


def hits_at_levels(ious: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether IoUs `[...]` reach each of `IOU_LEVELS`: `[..., 3]`."""
    return np.asarray(ious)[..., None] >= np.array(IOU_LEVELS)


def levels(values: Map, thresholds: npt.ArrayLike) -> Map:
    """Values of a map `[h, w]` that are shares of the way from its least to its greatest value.

    Args:
        values: the map.
        thresholds: shares, `[N]`.

    Returns:
        float32 `[N]`; 0 is the least value itself.
    """
    low, top = values.min(), values.max()
    return np.asarray(low + np.asarray(thresholds, np.float32) * (top - low), np.float32)


def is_flat(values: Map) -> bool:
    """Whether a map has too little spread to be normalised; see `heatmaps.min_max`."""
    # The least and the greatest value decide, and are not finite where another is not.
    return heatmaps.min_max(np.array([values.min(), values.max()])).status != "ok"


def box_hits(values: Map | None, boxes: Sequence[Box]) -> npt.NDArray[np.bool_]:
    """Whether one photo's box is right, at each score-map threshold and IoU level.

    See `max_box_acc`; the score map is normalised here by its least and greatest value.

    Args:
        values: the heatmap `[h, w]`, at the model's input size; None without evidence.
        boxes: true ones, in the heatmap's pixels.

    Returns:
        `[100, 3]`, for `SCORE_THRESHOLDS` and `IOU_LEVELS`; all False without evidence.
    """
    if values is None or is_flat(values):
        return np.zeros((len(SCORE_THRESHOLDS), len(IOU_LEVELS)), np.bool_)
    regions = heatmaps.boxes_at(values, levels(values, SCORE_THRESHOLDS))
    return hits_at_levels(ious(regions, boxes).max(axis=1))


def ious(a: Sequence[Box], b: Sequence[Box]) -> Floats:
    """IoU of each of A boxes with each of B boxes: `[A, B]`."""
    rows, columns = np.array(a, np.float64), np.array(b, np.float64)  # [A, 4], [B, 4]
    # Corners of the intersections, [A, B, 2]: x and y.
    low = np.maximum(rows[:, None, :2], columns[None, :, :2])
    high = np.minimum(rows[:, None, 2:], columns[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)  # [A, B]
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (rows, columns)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return intersection / union  # type: ignore[no-any-return]


def max_box_acc(hits: npt.NDArray[np.bool_]) -> Statistic:
    """MaxBoxAccV2: over IoU 0.3, 0.5 and 0.7, the mean of the best accuracy over thresholds.

    Choe et al., Evaluating weakly supervised object localization methods right, 2020. For each IoU
    level, the share of photos whose box reaches it is taken at the score-map threshold where that
    share is greatest. The thresholds are picked on the very photos that are measured, so this is
    what a method could reach, not what the service does.

    As in the paper: GT-known class, score maps normalised by minimum and maximum and enlarged to
    the model's input, thresholds 0 to 1, the best of several true boxes. As in its first version,
    and in the service, a threshold gives one box, of the largest region; their V2 may take the
    best of all regions. Their code cuts score maps to 8 bits first, keeps what is over a threshold
    (here: at or over), picks the region by its contour's area (here: by pixels), cuts boxes to
    whole pixels and counts a pixel more on each side; its steps are 0.001, here 0.01. As of every
    greatest of several means, samples' values lean upwards, and an interval of them with it.

    Args:
        hits: of each photo, see `box_hits`: `[N, thresholds, 3]`.

    Returns:
        0..1 for each of a statistic's samples.
    """
    table = hits.reshape(len(hits), -1).astype(np.float64)  # [N, thresholds * 3]

    def statistic(weights: Floats) -> Floats:
        # [R, N] @ [N, thresholds * 3] -> [R, thresholds, 3]; the best threshold of every level.
        accuracy = (weights @ table).reshape(len(weights), *hits.shape[1:])
        return accuracy.max(axis=1).mean(axis=1)  # type: ignore[no-any-return]

    return statistic


def pointing_hit(point: tuple[float, float] | None, boxes: Sequence[Box]) -> bool:
    """Whether a heatmap's peak is in a true box, or within 15 pixels of one.

    Zhang et al., Top-down neural attention by excitation backprop, 2018 (pointing game).

    Args:
        point: x, y in pixels of the photo; None without evidence, which misses.
        boxes: in pixels of the photo.
    """
    if point is None:
        return False
    x, y = point
    # The distance to a box is 0 within it.
    return any(
        np.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3])) <= TOLERANCE
        for box in boxes
    )


def energy_in_area(area: Box, box: Box) -> float:
    """Energy in box of a map that is even within `area` and zero outside; see `heatmaps`.

    That is the share of `area` that lies in `box`.
    """
    width = max(0.0, min(area[2], box[2]) - max(area[0], box[0]))
    height = max(0.0, min(area[3], box[3]) - max(area[1], box[1]))
    return width * height / ((area[2] - area[0]) * (area[3] - area[1]))
