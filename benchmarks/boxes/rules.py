"""Ways to derive a box from a heatmap, other than the service's."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from app.images import Box

__all__ = ["Find", "everything", "inferior_removed", "peak_region", "strongest_region"]

Map = npt.NDArray[np.float32]

Find = Callable[[Map, Sequence[float]], list[Box | None]]
"""The boxes at several thresholds, as fractions of the maximum; see `heatmaps.locate_all`."""


def inferior_removed(values: Map, percentile: float) -> Map:
    """IVR, inferior value removal: set values below a percentile to 0.

    Kim et al., Normalization matters in weakly supervised object localization, 2021:
    `max(0, v - p) / max(v - p)`. The division is left out: thresholds are relative to the maximum
    anyway. As in their code, the map is the enlarged one, and `p` is one of its values.

    Args:
        values: a heatmap `[h, w]`.
        percentile: at least 0 and less than 1.
    """
    rank = int(values.size * percentile)
    floor = np.partition(values, rank, axis=None)[rank]
    left: Map = np.maximum(values - floor, np.float32(0))
    return left


def everything(values: Map, thresholds: Sequence[float]) -> list[Box | None]:
    """The box around all values at or over the threshold, whatever their regions."""
    return [
        _box(cv2.boundingRect(mask)) if mask.any() else None for mask in _masks(values, thresholds)
    ]


def peak_region(values: Map, thresholds: Sequence[float]) -> list[Box | None]:
    """The box around the 8-connected region that holds the (first) maximum."""
    peak = np.unravel_index(int(np.argmax(values)), values.shape)
    return [_region(mask, lambda labels: int(labels[peak])) for mask in _masks(values, thresholds)]


def strongest_region(values: Map, thresholds: Sequence[float]) -> list[Box | None]:
    """The box around the 8-connected region with the greatest sum of values."""

    def strongest(labels: npt.NDArray[np.int32]) -> int:
        sums = np.bincount(labels.ravel(), values.ravel())
        return 1 + int(np.argmax(sums[1:]))

    return [_region(mask, strongest) for mask in _masks(values, thresholds)]


def _masks(values: Map, thresholds: Sequence[float]) -> list[npt.NDArray[np.uint8]]:
    """Masks of the values at or over each threshold, as in `heatmaps.locate`."""
    top = values.max()
    return [
        ((values >= np.float32(threshold) * top) & (top > 0)).astype(np.uint8)
        for threshold in thresholds
    ]


def _region(
    mask: npt.NDArray[np.uint8], choose: Callable[[npt.NDArray[np.int32]], int]
) -> Box | None:
    if not mask.any():
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return _box(stats[choose(labels)].tolist())  # type: ignore[arg-type]


def _box(stats: Sequence[int]) -> Box:
    x, y, width, height = stats[:4]
    return float(x), float(y), float(x + width), float(y + height)
