"""Accuracy, the boxes that need no photo to be guessed, and how sure a figure is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.images import Box

__all__ = [
    "CONSTANT_BOX",
    "FULL_FRAME",
    "Statistic",
    "best_iou",
    "estimate",
    "expected_calibration_error",
    "in_top_k",
    "interval",
    "mean",
    "resample",
]

CONSTANT_BOX: Box = (0.1, 0.05, 0.9, 0.95)
"""80 % x 90 % of the frame, centred, as shares: the guess any explanation has to beat."""

FULL_FRAME: Box = (0.0, 0.0, 1.0, 1.0)

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""A figure of a sample: from weights `[R, N]`, each row summing to 1 over the photos, to `[R]`."""

_RESAMPLES = 1000

_BINS = 15


def best_iou(found: Box | None, boxes: Sequence[Box]) -> float:
    """IoU with the best of several true boxes; 0 where nothing was found."""
    return max((heatmaps.iou(found, box) for box in boxes), default=0.0) if found else 0.0


def in_top_k(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], k: int
) -> npt.NDArray[np.bool_]:
    """Whether each row's label is among the k greatest scores.

    Args:
        scores: `[N, classes]`.
        labels: `[N]`.
        k: how many count.

    Returns:
        `[N]`.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return (best == labels[:, None]).any(axis=1)  # type: ignore[no-any-return]


def expected_calibration_error(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> float:
    """By how much the likeliest class's probability misses its accuracy, on average; 15 bins.

    Guo et al., On calibration of modern neural networks, 2017.

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.

    Returns:
        0..1.
    """
    sure = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=right - sure, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def mean(values: npt.NDArray[np.floating | np.bool_]) -> Statistic:
    """The mean of a figure `[N]` of each photo, as a statistic of a sample of photos."""
    column = np.asarray(values, np.float64)
    return lambda weights: weights @ column


def resample(count: int, *, seed: int) -> Floats:
    """A thousand samples of `count` photos out of `count`, drawn with replacement.

    Efron, Bootstrap methods: another look at the jackknife, 1979.

    Args:
        count: photos, N.
        seed: the same one gives the same samples, so that figures of the same photos are paired.

    Returns:
        float64 `[1000, N]`: how often each photo was drawn, divided by N.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES) / count


def interval(samples: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic's values over `resample`'s samples, `[R]`."""
    low, high = np.percentile(samples, (2.5, 97.5))
    return float(low), float(high)


def estimate(
    statistic: Statistic, weights: Floats, baseline: Statistic | None = None
) -> dict[str, Any]:
    """A figure with its 95 % interval, JSON-ready.

    Args:
        statistic: the figure.
        weights: see `resample`.
        baseline: the same figure of a guess, over the same photos.

    Returns:
        `value` and `interval`; with a baseline also `difference` to it and `difference_interval`,
        of the same samples for both: zero outside it says that the two differ.
    """
    whole = np.full((1, weights.shape[1]), 1 / weights.shape[1])
    told = {"value": statistic(whole), "interval": statistic(weights)}
    if baseline is not None:
        told["difference"] = told["value"] - baseline(whole)
        told["difference_interval"] = told["interval"] - baseline(weights)
    return {
        name: [round(edge, 4) for edge in interval(found)]
        if name.endswith("interval")
        else round(float(found[0]), 4)
        for name, found in told.items()
    }
