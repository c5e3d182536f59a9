"""How certain a prediction is: calibrated probabilities, and whether to doubt it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from app.bundle import ModelCard
from app.engines import layer_output

__all__ = ["calibrated", "greatest_foreground", "is_ok", "novelty_ratio", "probabilities"]

Floats = npt.NDArray[np.floating]
Outputs = Mapping[str, npt.NDArray[Any]]


def probabilities(logits: Floats, temperature: float) -> npt.NDArray[np.float32]:
    """Softmax of logits over a temperature; over 1, they come nearer to each other.

    Guo et al., On calibration of modern neural networks, 2017.

    Args:
        logits: `[..., classes]`.
        temperature: over 0.

    Returns:
        float32 of the same shape.
    """
    # softmax(z / T), with the greatest exponent at 0 so that none overflows.
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)


def calibrated(card: ModelCard, outputs: Outputs) -> npt.NDArray[np.float32]:
    """One photo's probabilities, float32 `[classes]`: calibrated where the model is."""
    if card.confidence is None:
        return outputs["probabilities"]
    return probabilities(outputs["logits"], card.confidence.temperature)


def is_ok(
    card: ModelCard, outputs: Outputs, shares: npt.NDArray[np.float32] | None = None
) -> bool | None:
    """Whether a prediction is as certain as those for most of the validation photos.

    Hendrycks & Gimpel, A baseline for detecting misclassified and out-of-distribution examples,
    2017 (the likeliest class's probability). Beside it what probabilities do not see: whether
    anything looks like what the model knows (the foreground), and the distance from what the
    training photos' features span (ViM, Wang et al., 2022).

    Args:
        card: the model's.
        outputs: one photo's.
        shares: `calibrated` of these, where the caller has it already.

    Returns:
        None where the model is not calibrated.
    """
    limits = card.confidence
    if limits is None:
        return None
    if limits.most_novelty is not None and not outputs["novelty"] <= limits.most_novelty:
        return False  # NaN included
    if shares is None:
        shares = calibrated(card, outputs)
    return bool(
        shares.max() >= limits.least_probability
        and greatest_foreground(card, outputs) >= limits.least_foreground
    )


def novelty_ratio(card: ModelCard, outputs: Outputs) -> float | None:
    """One photo's novelty over the most that is ok; None where the model does not measure it."""
    limits = card.confidence
    if limits is None or not limits.most_novelty:
        return None
    return float(outputs["novelty"]) / limits.most_novelty


def greatest_foreground(card: ModelCard, outputs: Outputs) -> float:
    """The greatest value of the foreground's raw map, at the finest of its layers."""
    name = layer_output(card, "foreground", card.foreground_layers[0])
    return float(outputs[name].max())
