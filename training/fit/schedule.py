"""The learning rate by step."""

import math

from training.config import TrainConfig

__all__ = ["learning_rate"]


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of a step: constant, or one cycle.

    A cycle rises linearly from a tenth of the peak, then falls along half a cosine to zero. With
    T steps, W = warmup * T of which rise, the rate of step t is

        peak * (0.1 + 0.9 * t / W)                           for t < W
        peak * (1 + cos(pi * (t - W) / (T - W))) / 2         from W on

    Epochs that train the head alone come before the cycle, at the peak.

    Smith & Topin, Super-Convergence, 2017.

    Args:
        config: has the schedule, the peak and the share of warm-up.
        step: counted from 0.
        total: steps of the whole run.
    """
    head_steps = total * config.frozen_epochs // config.epochs
    if config.schedule == "constant" or step < head_steps:
        return config.learning_rate
    step, total = step - head_steps, total - head_steps
    warmup = config.warmup * total
    if step < warmup:
        return config.learning_rate * (0.1 + 0.9 * step / warmup)
    progress = (step - warmup) / max(1.0, total - warmup)  # 0 at the peak, 1 at the end
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
