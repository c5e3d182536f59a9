"""How probabilities are calibrated and when an answer is doubted: found on validation photos."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.bundle import Bundle, Confidence
from app.confidence import probabilities
from app.engines import Cut, Engine
from training.data import Example
from training.errors import DataError
from training.explanations import Explained, explain
from training.metrics import expected_calibration_error

__all__ = ["SURE", "best_temperature", "calibrate_confidence", "limits"]

Floats = npt.NDArray[np.floating]

SURE = 0.95
"""Share of the validation photos whose `confidence` is to be ok."""


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
    measures = bundle.card.novelty is not None

    def read(row: Explained) -> tuple[npt.NDArray[np.float32], float]:
        return row.outputs["logits"], float(row.outputs["novelty"]) if measures else 0.0

    found = list(explain(bundle.card, engine, examples, Cut.EXPLAIN, read, "confidence"))
    logits = np.stack([each for each, _ in found])
    labels = np.array([example.label for example in examples])
    temperature = best_temperature(logits, labels)
    calibrated = probabilities(logits, temperature)
    novelty = np.array([each for _, each in found]) if measures else None
    least_probability, most_novelty = limits(calibrated.max(axis=1), novelty)
    return Confidence(
        temperature=temperature,
        least_probability=least_probability,
        most_novelty=most_novelty,
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


def limits(
    likeliest: Floats, novelty: Floats | None, sure: float = SURE
) -> tuple[float, float | None]:
    """The strictest pair of limits that leaves a share of photos ok.

    Each is as strict as the other: as many photos lie beyond either.

    Args:
        likeliest: the likeliest class's calibrated probability, `[N]`.
        novelty: `[N]`, or None.
        sure: the share.

    Returns:
        The least probability and the most novelty that are ok.
    """
    measured = np.zeros_like(likeliest) if novelty is None else novelty
    strictest = (0.0, 0.0)
    for least, most in zip(np.sort(likeliest), np.sort(measured)[::-1], strict=True):
        if np.mean((likeliest >= least) & (measured <= most)) < sure:
            break
        strictest = (float(least), float(most))
    return strictest[0], None if novelty is None else strictest[1]
