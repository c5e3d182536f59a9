"""How sure an answer is: calibrated probabilities, and whether to doubt it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from app.bundle import ModelCard
from app.engines import layer_output

__all__ = ["greatest_foreground", "is_ok", "probabilities"]

Floats = npt.NDArray[np.floating]
Outputs = Mapping[str, npt.NDArray[Any]]


def probabilities(logits: Floats, temperature: float) -> npt.NDArray[np.float32]:
    """Softmax of logits over a temperature; over 1, it makes the network less sure of itself.

    Guo et al., On calibration of modern neural networks, 2017.

    Args:
        logits: `[..., classes]`.
        temperature: over 0.

    Returns:
        float32 of the same shape.
    """
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)


def is_ok(card: ModelCard, outputs: Outputs) -> bool | None:
    """Whether an answer is as sure as most of the validation photos' are.

    Hendrycks & Gimpel, A baseline for detecting misclassified and out-of-distribution examples,
    2017 (the likeliest class's probability). Beside it what probabilities do not see: whether
    anything looks like what the model knows (the foreground), and the distance from what the
    training photos' features span (ViM, Wang et al., 2022).

    Args:
        card: the model's.
        outputs: one photo's.

    Returns:
        None where the model is not calibrated.
    """
    limits = card.confidence
    if limits is None:
        return None
    if limits.most_novelty is not None and not outputs["novelty"] <= limits.most_novelty:
        return False  # NaN included
    likeliest = probabilities(outputs["logits"], limits.temperature).max()
    return bool(
        likeliest >= limits.least_probability
        and greatest_foreground(card, outputs) >= limits.least_foreground
    )


def greatest_foreground(card: ModelCard, outputs: Outputs) -> float:
    """The greatest value of the foreground's raw map, at the finest of its layers."""
    name = layer_output(card, "foreground", card.foreground_layers[0])
    return float(outputs[name].max())
