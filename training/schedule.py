"""The rate of each step."""

import math

from training.config import TrainConfig

__all__ = ["learning_rate"]


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The rate of a step: constant, or one cycle.

    One cycle is linear from a tenth of the peak up to it, then half a cosine down to zero. Epochs
    that train the head alone come before the cycle, at the peak.

    Smith & Topin, Super-Convergence, 2017.

    Args:
        config: gives the schedule, the peak and the share of warm-up.
        step: counted from 0.
        total: steps of the whole run.
    """
    before = total * config.frozen_epochs // config.epochs
    if config.schedule == "constant" or step < before:
        return config.learning_rate
    step, total = step - before, total - before
    rising = config.warmup * total
    if step < rising:
        return config.learning_rate * (0.1 + 0.9 * step / rising)
    progress = (step - rising) / max(1.0, total - rising)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
