"""Accuracy, the boxes that need no photo to be guessed, and how sure a figure is."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.images import Box
from training.evaluation.schema import Estimate, Interval, ReliabilityBin

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
    "reliability",
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


def best_iou(box: Box | None, true_boxes: Sequence[Box]) -> float:
    """IoU with the best of several true boxes; 0 without a box."""
    return max((heatmaps.iou(box, true) for true in true_boxes), default=0.0) if box else 0.0


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
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # [N, k]
    return (best == labels[:, None]).any(axis=1)  # type: ignore[no-any-return]


def expected_calibration_error(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> float:
    """By how much the likeliest class's probability misses its accuracy, on average; 15 bins.

    Guo et al., On calibration of modern neural networks, 2017: the sum over bins b of
    `n_b / N * |accuracy_b - confidence_b|`.

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.

    Returns:
        0..1.
    """
    _, confidence, correct = _binned(probabilities, labels)
    # A bin's sum of (correct - confidence) is n_b * (accuracy_b - confidence_b).
    return float(np.abs(correct - confidence).sum() / len(labels))


def reliability(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> list[ReliabilityBin]:
    """The bins of `expected_calibration_error`: how often a stated probability holds true.

    DeGroot and Fienberg, The comparison and evaluation of forecasters, 1983 (reliability diagram).

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.

    Returns:
        15 bins of equal width, from 0 to 1, rounded to four decimals.
    """
    bins = zip(*_binned(probabilities, labels), strict=True)
    return [
        ReliabilityBin(
            low=round(number / _BINS, 4),
            high=round((number + 1) / _BINS, 4),
            photos=int(count),
            confidence=round(float(confidence / count), 4) if count else None,
            accuracy=round(float(correct / count), 4) if count else None,
        )
        for number, (count, confidence, correct) in enumerate(bins)
    ]


def _binned(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> tuple[Floats, Floats, Floats]:
    """Sums over the photos of each bin: photos, probabilities and right answers, `[15]` each."""
    confidence = probabilities.max(axis=1).astype(np.float64)  # [N]
    correct = probabilities.argmax(axis=1) == labels  # [N]
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)  # 1.0 belongs to the last bin

    def sums(values: npt.NDArray[np.float64 | np.bool_] | None = None) -> Floats:
        return np.bincount(bins, weights=values, minlength=_BINS).astype(np.float64)

    return sums(), sums(confidence), sums(correct)


def mean(values: npt.NDArray[np.floating | np.bool_]) -> Statistic:
    """The mean of a figure `[N]` of each photo, as a statistic of a sample of photos."""
    column = np.asarray(values, np.float64)
    return lambda weights: weights @ column  # [R, N] @ [N] -> [R]


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


def interval(samples: Floats) -> Interval:
    """The 95 % percentile interval of a statistic's values over `resample`'s samples, `[R]`."""
    low, high = np.percentile(samples, (2.5, 97.5))
    return float(low), float(high)


def estimate(
    statistic: Statistic,
    weights: Floats,
    baseline: Statistic | None = None,
    *,
    heatmap: Statistic | None = None,
) -> Estimate:
    """A figure with its 95 % interval, rounded to four decimals.

    Args:
        statistic: the figure.
        weights: `[R, N]`, see `resample`.
        baseline: the same figure of the constant box, or of another method, over the same photos.
        heatmap: the same figure by the rule `heatmap`, over the same photos.

    Returns:
        The figure, and its difference to each of the two that is passed. An interval of a
        difference comes from the same samples for both figures: they differ where it does not
        hold zero.
    """
    count = weights.shape[1]
    once = np.full((1, count), 1 / count)  # every photo as often as any other
    value, samples = statistic(once), statistic(weights)  # [1], [R]

    def difference(other: Statistic | None) -> tuple[float | None, Interval | None]:
        if other is None:
            return None, None
        return _rounded(value - other(once)), _rounded_interval(samples - other(weights))

    to_baseline, to_baseline_interval = difference(baseline)
    to_heatmap, to_heatmap_interval = difference(heatmap)
    return Estimate(
        value=_rounded(value),
        interval=_rounded_interval(samples),
        difference=to_baseline,
        difference_interval=to_baseline_interval,
        difference_to_heatmap=to_heatmap,
        difference_to_heatmap_interval=to_heatmap_interval,
    )


def _rounded(value: Floats) -> float:
    return round(float(value[0]), 4)


def _rounded_interval(samples: Floats) -> Interval:
    low, high = interval(samples)
    return round(low, 4), round(high, 4)
