"""The networks that can be trained, with random or pre-trained weights."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Architecture
from training.errors import WeightsError
from training.networks import imagenet
from training.networks.preprocessing import Preprocessing

__all__ = [
    "build",
    "custom_cnn",
    "imagenet_head",
    "imagenet_resnet50",
    "preprocessing",
    "resnet50",
    "takes_any_size",
]

_IMAGENET_TOP = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
_IMAGENET_NOTOP = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"

_Shape = tuple[int | None, int | None, int]

_CUSTOM_CNN_FILTERS = (32, 64, 128, 256, 256)


def build(
    architecture: Architecture,
    classes: int,
    weights: str = "none",
    input_size: int | None = None,
) -> keras.Model:
    """A network to train, from photos preprocessed as `preprocessing` says, to logits.

    Args:
        architecture: `RESNET50` or `CUSTOM_CNN`.
        classes: number of logits.
        weights: see `resnet50`; `custom_cnn` takes `none` only.
        input_size: side of the square input in pixels; None, for any size, if `takes_any_size`.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read, or do not exist for this
            architecture.
        ValueError: another architecture, or `CUSTOM_CNN` without an input size.
    """
    match architecture:
        case Architecture.RESNET50:
            return resnet50(classes, weights, input_size=input_size)
        case Architecture.CUSTOM_CNN if input_size is not None:
            return custom_cnn(classes, weights, input_size=input_size)
    raise ValueError(f"{architecture} at {input_size} px is not built here")


def preprocessing(architecture: Architecture) -> Preprocessing:
    """The preprocessing that a network of `build` expects outside of itself."""
    return Preprocessing.CAFFE if architecture is Architecture.RESNET50 else Preprocessing.NONE


def takes_any_size(architecture: Architecture) -> bool:
    """Whether a network can be trained at input sizes other than the one it is exported at."""
    return architecture is Architecture.RESNET50


def custom_cnn(classes: int, weights: str = "none", *, input_size: int) -> keras.Model:
    """A plain network: convolutions, max pooling, and fully connected layers after a Flatten.

    It is trained from scratch. It has no global average pooling, so Grad-CAM is defined for it and
    CAM is not. At 224 px and ten classes it has 8.6 million weights, 17 MB in float16. Maps at
    input size S:

        conv1  [N, S, S, 32]           conv4  [N, S/8, S/8, 256]
        conv2  [N, S/2, S/2, 64]       conv5, conv6  [N, S/16, S/16, 256]
        conv3  [N, S/4, S/4, 128]      then pooled to S/32, flattened, 512, 256, classes

    Args:
        classes: number of logits.
        weights: `none`.
        input_size: side of the square input in pixels, 32 or more.

    Returns:
        A model from float32 RGB 0..255 `[N, input_size, input_size, 3]` to float32 logits
        `[N, classes]`; the rescaling to 0..1 is its first layer.

    Raises:
        WeightsError: `weights` is anything but `none`.
    """
    if weights != "none":
        raise WeightsError(
            f"{Architecture.CUSTOM_CNN} has no pre-trained weights, so --weights {weights} cannot "
            "be used: it is trained from scratch. Pass --weights none."
        )
    layers = keras.layers
    photo = keras.Input((input_size, input_size, 3), name="photo")
    x = layers.Rescaling(1 / 255, name="rescaling")(photo)
    for number, filters in enumerate(_CUSTOM_CNN_FILTERS, start=1):
        x = _convolution(filters, f"conv{number}")(x)
        if number == len(_CUSTOM_CNN_FILTERS):
            x = _convolution(filters, f"conv{number + 1}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", kernel_initializer="he_normal", name="fc1")(x)
    x = layers.Dropout(0.5, name="dropout1")(x)
    x = layers.Dense(256, activation="relu", kernel_initializer="he_normal", name="fc2")(x)
    x = layers.Dropout(0.5, name="dropout2")(x)
    logits = layers.Dense(classes, name="predictions")(x)
    return keras.Model(photo, logits, name=Architecture.CUSTOM_CNN.value)


def _convolution(filters: int, name: str) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        name=name,
    )


def resnet50(classes: int, weights: str = "none", *, input_size: int | None = None) -> keras.Model:
    """ResNet50 with global average pooling and one Dense layer.

    He et al., Deep Residual Learning for Image Recognition, 2015, as in `keras.applications`.

    Args:
        classes: number of logits.
        weights: `imagenet` (downloaded by Keras), `none`, or the path of a weights file in Keras's
            layout without the top.
        input_size: side of the square input in pixels; None for any size.

    Returns:
        A model from float32 `[N, h, w, 3]`, as `keras.applications.resnet50.preprocess_input`
        makes it, to float32 logits `[N, classes]`; its last activation is `conv5_block3_out`.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
    """
    backbone = _backbone(weights, (input_size, input_size, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    logits = keras.layers.Dense(classes, name="predictions")(pooled)
    return keras.Model(backbone.input, logits, name=Architecture.RESNET50.value)


def imagenet_resnet50(
    weights: str = "imagenet", head: Path | None = None, *, input_size: int = 224
) -> keras.Model:
    """ResNet50 with a head for ImageNet's 1000 classes, to logits.

    Args:
        weights: `imagenet` (downloaded by Keras, with the top), or the path of a weights file in
            Keras's layout.
        head: the final layer for a weights file without the top, see `imagenet.read_head`; None
            if the weights file has the top.
        input_size: side of the square input in pixels.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read, or file and head do not fit
            together.
    """
    shape = (input_size, input_size, 3)
    if weights == "imagenet" and head is not None:
        raise WeightsError(
            "--head FILE goes with a weights file without the top: Keras's download has it."
        )
    if weights != "imagenet":
        imagenet.check_parts(Path(weights), head)
    if head is None:
        return _keras_resnet50(weights, shape, top=True)
    kernel, bias = imagenet.read_head(head)
    model = resnet50(imagenet.CLASSES, weights, input_size=input_size)
    model.get_layer("predictions").set_weights([kernel, bias])
    return model


def imagenet_head(source: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Kernel `[2048, 1000]` and bias `[1000]` of the final layer of ImageNet's ResNet50.

    Args:
        source: `imagenet` (downloaded by Keras, with the backbone), or the path of a file for
            `imagenet.read_head`.

    Raises:
        WeightsError: the layer cannot be downloaded, found or read.
    """
    if source != "imagenet":
        return imagenet.read_head(Path(source))
    model = _keras_resnet50("imagenet", (224, 224, 3), top=True, option="--head")
    kernel, bias = model.layers[-1].get_weights()
    return kernel, bias


def _backbone(weights: str, shape: _Shape) -> keras.Model:
    return _keras_resnet50(None if weights == "none" else weights, shape, top=False)


def _keras_resnet50(
    weights: str | None, shape: _Shape, *, top: bool, option: str = "--weights"
) -> keras.Model:
    try:
        return keras.applications.ResNet50(
            weights=weights, include_top=top, input_shape=shape, classifier_activation=None
        )
    except Exception as error:  # urllib, h5py and Keras each raise their own
        reason = " ".join(str(error).split())
        if weights == "imagenet":
            raise WeightsError(
                f"Keras's ImageNet weights could not be downloaded ({reason}). Fetch "
                f"{_IMAGENET_TOP if top else _IMAGENET_NOTOP} on a machine with internet access "
                f"and put it in ~/.keras/models, or pass {option} FILE."
            ) from error
        kind = "with" if top else "without"
        raise WeightsError(
            f"{weights} holds no weights of a ResNet50 {kind} the top: {reason}"
        ) from error
