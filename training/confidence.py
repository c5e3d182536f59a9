"""How probabilities are calibrated and when an answer is doubted: found on validation photos."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.bundle import Bundle, Confidence
from app.confidence import greatest_foreground, probabilities
from app.engines import Cut, Engine
from training.data import Example
from training.errors import DataError
from training.explanations import Explained, explain
from training.metrics import expected_calibration_error

__all__ = ["SURE", "TAILS", "best_temperature", "calibrate_confidence", "limits"]

Floats = npt.NDArray[np.floating]

SURE = 0.95
"""Share of the validation photos whose `confidence` is to be ok."""

TAILS = (1.0, 1.0, 1 / 3)
"""How many of them may lie beyond the limits of probability, foreground and novelty.

Fewer beyond novelty's: noise, which it is there for, lies far beyond every photo.
"""


def calibrate_confidence(bundle: Bundle, engine: Engine, examples: Sequence[Example]) -> Confidence:
    """The temperature and the limits of confidence.

    Args:
        bundle: the model version.
        engine: runs it.
        examples: photos that the model was not trained on, of the validation split.

    Raises:
        DataError: there are none.
    """
    if not examples:
        raise DataError("There are no validation photos to calibrate probabilities on.")
    card = bundle.card

    def read(row: Explained) -> tuple[npt.NDArray[np.float32], float, float]:
        novelty = float(row.outputs["novelty"]) if card.novelty else 0.0
        return row.outputs["logits"], greatest_foreground(card, row.outputs), novelty

    found = list(explain(card, engine, examples, Cut.EXPLAIN, read, "confidence"))
    logits, foreground, novelty = (np.array(column) for column in zip(*found, strict=True))
    labels = np.array([example.label for example in examples])
    temperature = best_temperature(logits, labels)
    calibrated = probabilities(logits, temperature)
    measures = np.stack([calibrated.max(axis=1), foreground, -novelty], axis=1).astype(np.float64)
    # What is not finite, as a network that was hardly trained may give, is the least sure of all.
    measures = np.where(np.isfinite(measures), measures, float(np.finfo(np.float32).min))
    least_probability, least_foreground, familiar = limits(measures, TAILS)
    return Confidence(
        temperature=temperature,
        least_probability=least_probability,
        least_foreground=least_foreground,
        most_novelty=-familiar if card.novelty else None,
        photos=len(examples),
        ece=round(expected_calibration_error(calibrated, labels), 4),
        ece_before=round(expected_calibration_error(probabilities(logits, 1.0), labels), 4),
    )


def best_temperature(logits: Floats, labels: npt.NDArray[np.integer]) -> float:
    """The temperature with the least negative log likelihood, 0.05 to 20.

    Photos that are all right have none: the surer, the likelier. So the likeliest class's
    probability may come to (N + 1) / (N + 2) on average and no more, by Laplace's rule of
    succession.

    Args:
        logits: `[N, classes]`.
        labels: `[N]`.
    """
    count = len(labels)
    beyond = logits.astype(np.float64)
    beyond -= beyond[np.arange(count), labels][:, None]  # an own class of 0: nothing cancels
    low, high = 1 / 20, 1 / 0.05
    # In the inverse temperature the likelihood's slope falls and sureness rises, both steadily.
    for _ in range(60):
        middle = (low + high) / 2
        found = probabilities(beyond, 1 / middle)
        gains = (found * beyond).sum() < 0
        if gains and found.max(axis=1).mean() < (count + 1) / (count + 2):
            low = middle
        else:
            high = middle
    return round(2 / (low + high), 4)


def limits(measures: Floats, tails: Sequence[float], sure: float = SURE) -> list[float]:
    """The strictest limits that leave a share of photos ok, in a fixed proportion to each other.

    Args:
        measures: `[N, M]`; of each, the greater the surer.
        tails: how many photos lie beyond each limit, in times of the first one.
        sure: the share.

    Returns:
        The least of each measure that is ok.
    """
    ordered = np.sort(measures, axis=0)
    strictest = ordered[0]
    for rank in range(len(ordered)):
        least = np.array([ordered[int(rank * tail), i] for i, tail in enumerate(tails)])
        if np.mean((measures >= least).all(axis=1)) < sure:
            break
        strictest = least
    return [float(each) for each in strictest]
