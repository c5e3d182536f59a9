"""Top-k accuracy, and which breeds are taken for which."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.bundle import Label
from training.evaluation.metrics import estimate, in_top_k, mean, resample
from training.evaluation.schema import Confusion, Estimate

__all__ = ["PAIRS", "accuracy", "confusion", "most_confused"]

PAIRS = 10
"""How many of the most confused pairs are kept, at most."""

Labels = npt.NDArray[np.integer]
Probabilities = npt.NDArray[np.floating]


def accuracy(probabilities: Probabilities, labels: Labels, k: int, *, seed: int) -> Estimate:
    """Top-k accuracy with its 95 % interval.

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.
        k: how many of the likeliest classes count.
        seed: of the interval's samples, see `metrics.resample`.
    """
    return estimate(mean(in_top_k(probabilities, labels, k)), resample(len(labels), seed=seed))


def confusion(
    names: Sequence[Label], labels: Labels, probabilities: Probabilities
) -> dict[str, dict[str, int]]:
    """How many photos of a breed are taken for which.

    Args:
        names: the model's classes.
        labels: `[N]`.
        probabilities: `[N, classes]`.

    Returns:
        Counts by true, then predicted breed, both in the model's order; pairs without a photo are
        left out.
    """
    counts: dict[str, dict[str, int]] = {}
    for (true, predicted), count in sorted(_pairs(labels, probabilities).items()):
        counts.setdefault(names[true].name, {})[names[predicted].name] = count
    return counts


def _pairs(labels: Labels, probabilities: Probabilities) -> Counter[tuple[int, int]]:
    """Photos by true and predicted class."""
    return Counter(zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True))


def most_confused(
    names: Sequence[Label], labels: Labels, probabilities: Probabilities
) -> list[Confusion]:
    """The pairs of breeds of which the first is taken for the second most often.

    Args:
        names: the model's classes.
        labels: `[N]`.
        probabilities: `[N, classes]`.

    Returns:
        At most `PAIRS`, the pair with the most photos first; of equal ones, that with the greatest
        share of its breed's photos.
    """
    pairs = _pairs(labels, probabilities)
    wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    photos = Counter(labels.tolist())
    shares = {pair: count / photos[pair[0]] for pair, count in wrong.items()}
    order = sorted(wrong, key=lambda pair: (-wrong[pair], -shares[pair], pair))
    return [
        Confusion(
            true=names[true].name,
            predicted=names[predicted].name,
            count=wrong[true, predicted],
            share=round(shares[true, predicted], 4),
        )
        for true, predicted in order[:PAIRS]
    ]
