"""The networks that can be trained, with random or pre-trained weights, by architecture."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Architecture
from training.errors import WeightsError
from training.networks import efficientnet_lite, resnet50
from training.networks.custom_cnn import custom_cnn
from training.networks.preprocessing import Preprocessing

__all__ = ["build", "imagenet_network", "imagenet_top", "preprocessing", "takes_any_size"]

Array = npt.NDArray[np.float32]


def build(
    architecture: Architecture,
    classes: int,
    weights: str = "none",
    input_size: int | None = None,
) -> keras.Model:
    """A network to train, from photos preprocessed as `preprocessing` says, to logits.

    Args:
        architecture: any but `KERAS`.
        classes: number of logits.
        weights: `imagenet`, `none`, or the path of a weights file; `custom_cnn` takes `none` only.
        input_size: side of the square input in pixels; None, for any size, if `takes_any_size`.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read, or do not exist for this
            architecture.
        ValueError: another architecture, or `CUSTOM_CNN` without an input size.
    """
    match architecture:
        case Architecture.RESNET50:
            return resnet50.resnet50(classes, weights, input_size=input_size)
        case Architecture.EFFICIENTNET_LITE2:
            return efficientnet_lite.lite2(classes, weights, input_size=input_size)
        case Architecture.CUSTOM_CNN if input_size is not None:
            return custom_cnn(classes, weights, input_size=input_size)
    raise ValueError(f"{architecture} at {input_size} px is not built here")


def imagenet_network(
    architecture: Architecture,
    weights: str = "imagenet",
    head: Path | None = None,
    *,
    input_size: int,
) -> keras.Model:
    """A pre-trained network with its head for ImageNet's 1000 classes, to logits.

    Args:
        architecture: `RESNET50` or `EFFICIENTNET_LITE2`.
        weights: `imagenet`, or the path of a weights file.
        head: ResNet50's final layer in a file of its own; see `resnet50.with_top`.
        input_size: side of the square input in pixels.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read, or file and head do not fit
            together.
        ValueError: another architecture.
    """
    match architecture:
        case Architecture.RESNET50:
            return resnet50.with_top(weights, head, input_size=input_size)
        case Architecture.EFFICIENTNET_LITE2 if head is None:
            return efficientnet_lite.with_top(weights, input_size=input_size)
        case Architecture.EFFICIENTNET_LITE2:
            raise WeightsError(
                f"--head FILE goes with a ResNet50: the weights of {architecture} include the "
                "final layer."
            )
    raise ValueError(f"{architecture} has no pre-trained weights")


def imagenet_top(architecture: Architecture, source: str) -> tuple[Array, Array]:
    """Kernel `[features, 1000]` and bias `[1000]` of the final layer for ImageNet.

    Args:
        architecture: any but `KERAS`.
        source: `imagenet`, or the path of a file: of the final layer (`resnet50.read_head`), or of
            EfficientNet-Lite2's weights.

    Raises:
        WeightsError: the layer cannot be downloaded, found or read, or there is none.
    """
    match architecture:
        case Architecture.RESNET50:
            return resnet50.top(source)
        case Architecture.EFFICIENTNET_LITE2:
            return efficientnet_lite.top(source)
    raise WeightsError(f"--head {source} does not fit: {architecture} has no weights of ImageNet.")


def preprocessing(architecture: Architecture) -> Preprocessing:
    """The preprocessing that a network of `build` expects outside of itself."""
    return Preprocessing.CAFFE if architecture is Architecture.RESNET50 else Preprocessing.NONE


def takes_any_size(architecture: Architecture) -> bool:
    """Whether a network can be trained at input sizes other than the one it is exported at."""
    return architecture is not Architecture.CUSTOM_CNN
