"""The temperature of probabilities and the limits of `confidence`, from validation photos."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.bundle import NOVELTY_BOUNDS, PROBABILITY_BOUNDS, Bundle, Confidence, Reference
from app.confidence import greatest_foreground, probabilities
from app.engines import Cut, Engine
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.inference import Explained, explain
from training.evaluation.metrics import expected_calibration_error

__all__ = ["SURE", "TAILS", "best_temperature", "calibrate_confidence", "limits", "reference"]

Floats = npt.NDArray[np.floating]

SURE = 0.95
"""Share of the validation photos whose `confidence` is to be ok."""

TAILS = (1.0, 1.0, 1 / 3)
"""How many photos may lie beyond the limits of probability, foreground and novelty, as a ratio.

Novelty's limit is the widest: it is there for noise, which lies far beyond every photo.
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

    rows = list(explain(card, engine, examples, Cut.EXPLAIN, read, "confidence"))
    # [N, classes], [N], [N]
    logits, foreground, novelty = (np.array(column) for column in zip(*rows, strict=True))
    labels = np.array([example.label for example in examples])
    temperature = best_temperature(logits, labels)
    calibrated = probabilities(logits, temperature)
    finite = np.isfinite(calibrated).all(axis=1)
    if not finite.any():
        raise DataError("The model gives no finite probability for any validation photo.")
    before = probabilities(logits, 1.0)
    # [N, 3]; in each column, more is surer.
    measures = np.stack([calibrated.max(axis=1), foreground, -novelty], axis=1).astype(np.float64)
    # What is not finite, as a network that was hardly trained may give, is the least sure of all.
    measures = np.where(np.isfinite(measures), measures, float(np.finfo(np.float32).min))
    least = limits(measures, TAILS)
    least_probability, least_foreground, familiar = least
    return Confidence(
        temperature=temperature,
        least_probability=least_probability,
        least_foreground=least_foreground,
        most_novelty=-familiar if card.novelty else None,
        photos=len(examples),
        ece=round(expected_calibration_error(calibrated[finite], labels[finite]), 4),
        ece_before=round(expected_calibration_error(before[finite], labels[finite]), 4),
        reference=reference(
            calibrated[finite],
            novelty[finite] / -familiar if card.novelty and familiar else None,
            low=1 - float((measures >= np.array(least)).all(axis=1).mean()),
        ),
    )


def reference(shares: Floats, novelty: Floats | None, low: float) -> Reference:
    """How photos are answered, for comparison with those in service.

    Args:
        shares: probabilities `[N, classes]`, calibrated.
        novelty: `[N]`, over the most that is ok; None where it is not measured.
        low: share of the photos whose confidence is low.
    """
    counts = np.bincount(shares.argmax(axis=1), minlength=shares.shape[1])
    return Reference(
        probability=_shares(shares.max(axis=1), PROBABILITY_BOUNDS),
        novelty=None if novelty is None else _shares(novelty, NOVELTY_BOUNDS),
        classes=tuple(np.round(counts / len(shares), 4).tolist()),
        low=round(low, 4),
    )


def _shares(values: Floats, bounds: Sequence[float]) -> dict[float, float]:
    """The share of `[N]` values at or under each bound."""
    return {bound: round(float((values <= bound).mean()), 4) for bound in bounds}


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
    # Margins z_j - z_y over the true class y: its own is 0, so that no digits cancel.
    margins = logits.astype(np.float64)
    margins -= margins[np.arange(count), labels][:, None]  # [N, classes]
    # Bisection over the inverse temperature b. The slope of the log likelihood,
    # -sum_n sum_j p_j(b) * margin_j, falls with b, and the mean greatest probability rises.
    low, high = 1 / 20, 1 / 0.05
    for _ in range(60):
        middle = (low + high) / 2
        shares = probabilities(margins, 1 / middle)
        likelier = (shares * margins).sum() < 0
        if likelier and shares.max(axis=1).mean() < (count + 1) / (count + 2):
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
    ordered = np.sort(measures, axis=0)  # every column from its least value up
    strictest = ordered[0]
    for rank in range(len(ordered)):
        # With `rank` photos beyond the first limit, `rank * tail` are beyond each of the others.
        least = np.array([ordered[int(rank * tail), i] for i, tail in enumerate(tails)])
        if np.mean((measures >= least).all(axis=1)) < sure:
            break
        strictest = least
    return [float(limit) for limit in strictest]
