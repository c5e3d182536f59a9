"""Licence and provenance of weights, for `model.json`."""

from pathlib import Path

from app.bundle import Architecture
from training.config import TrainConfig

__all__ = ["IMAGENET", "run_licence", "run_provenance"]

IMAGENET = "Derived from ImageNet photos: for non-commercial research and education."
"""Terms of everything that derives from ImageNet's photos, of which Stanford Dogs is a part."""

_NETWORKS = {Architecture.RESNET50: "ResNet50", Architecture.CUSTOM_CNN: "Plain CNN"}


def run_licence(config: TrainConfig) -> str:
    """The licence terms of a run's weights.

    Empty for a network that was trained from random weights alone on a folder of photos. A weights
    file, a final layer and a teacher count as ImageNet's: most are, and the file itself does not
    say.
    """
    derived = (
        config.weights != "none"
        or config.head != "random"
        or bool(config.teachers)
        or config.source == "stanford_dogs"
    )
    return IMAGENET if derived else ""


def run_provenance(config: TrainConfig, dataset: str) -> str:
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
    if config.head != "random":
        start += f" and the final layer of {_name(config.head)}"
    if config.teachers:
        dataset += f", taught by {', '.join(map(_teacher, config.teachers))}"
    return f"{_NETWORKS[config.architecture]}, trained from {start} on {dataset}."


def _teacher(path: Path) -> str:
    """`name` of `models/name` or `models/name/version`."""
    return path.parent.name if path.name.isdigit() else path.name


def _name(head: str) -> str:
    return "ImageNet" if head == "imagenet" else Path(head).name
