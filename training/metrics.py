"""Figures of merit, and the boxes that need no photo to be guessed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.images import Box

__all__ = ["CONSTANT_BOX", "FULL_FRAME", "best_iou", "top_k_accuracy"]

CONSTANT_BOX: Box = (0.1, 0.05, 0.9, 0.95)
"""80 % x 90 % of the frame, centred, as shares: the guess any explanation has to beat."""

FULL_FRAME: Box = (0.0, 0.0, 1.0, 1.0)


def best_iou(found: Box | None, boxes: Sequence[Box]) -> float:
    """IoU with the best of several true boxes; 0 where nothing was found."""
    return max((heatmaps.iou(found, box) for box in boxes), default=0.0) if found else 0.0


def top_k_accuracy(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], k: int
) -> float:
    """Share of rows whose label is among the k greatest scores.

    Args:
        scores: `[N, classes]`.
        labels: `[N]`.
        k: how many count.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == labels[:, None]).any(axis=1)))
