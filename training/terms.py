"""The terms that weights come under, and where they come from: for `model.json`."""

from pathlib import Path

from app.bundle import Architecture
from training.config import TrainConfig

__all__ = ["IMAGENET", "of_run", "origin_of_run"]

IMAGENET = "Derived from ImageNet photos: for non-commercial research and education."
"""Of all that has ImageNet's weights or photos in it; Stanford Dogs' photos are ImageNet's."""

_NETWORKS = {Architecture.RESNET50: "ResNet50", Architecture.CUSTOM_CNN: "Plain CNN"}


def of_run(config: TrainConfig) -> str:
    """The terms of a run's weights.

    Empty for a network that was trained from random weights on a folder of photos. A weights file
    counts as ImageNet's: most have come from there, and nothing in it tells.
    """
    derived = config.weights != "none" or config.source == "stanford_dogs"
    return IMAGENET if derived else ""


def origin_of_run(config: TrainConfig, dataset: str) -> str:
    """What a run's weights started from, and what they were trained on.

    Args:
        config: the run's.
        dataset: the name of its data set.
    """
    match config.weights:
        case "none":
            start = "random weights"
        case "imagenet":
            start = "Keras's ImageNet weights"
        case path:
            start = Path(path).name
    return f"{_NETWORKS[config.architecture]}, trained from {start} on {dataset}."
