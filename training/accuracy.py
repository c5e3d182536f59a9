"""How often the right breed is among the likeliest, and which breeds are taken for which."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.bundle import Label
from training.metrics import estimate, in_top_k, mean, resample

__all__ = ["PAIRS", "accuracy", "most_confused"]

PAIRS = 10
"""How many of the most confused pairs are told."""

Labels = npt.NDArray[np.integer]
Probabilities = npt.NDArray[np.floating]


def accuracy(probabilities: Probabilities, labels: Labels, *, seed: int) -> dict[str, Any]:
    """Top-1 and top-5 accuracy with their 95 % intervals, JSON-ready.

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.
        seed: of the intervals' samples, see `metrics.resample`.
    """
    weights = resample(len(labels), seed=seed)
    figures: dict[str, Any] = {}
    for k in (1, 5):
        share = estimate(mean(in_top_k(probabilities, labels, k)), weights)
        figures |= {f"top{k}": share["value"], f"top{k}_interval": share["interval"]}
    return figures


def most_confused(
    names: Sequence[Label], labels: Labels, probabilities: Probabilities
) -> list[dict[str, Any]]:
    """The pairs of breeds of which the first is most often taken for the second.

    Args:
        names: the model's classes.
        labels: `[N]`.
        probabilities: `[N, classes]`.

    Returns:
        At most `PAIRS`, the pair with the most photos first; of equal ones, that with the greatest
        share of its breed's photos. Each has `true`, `predicted`, `count` and `share`.
    """
    pairs = zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True)
    wrong = Counter((true, predicted) for true, predicted in pairs if true != predicted)
    photos = Counter(labels.tolist())
    shares = {pair: count / photos[pair[0]] for pair, count in wrong.items()}
    order = sorted(wrong, key=lambda pair: (-wrong[pair], -shares[pair], pair))
    return [
        {
            "true": names[true].name,
            "predicted": names[predicted].name,
            "count": wrong[true, predicted],
            "share": round(shares[true, predicted], 4),
        }
        for true, predicted in order[:PAIRS]
    ]
