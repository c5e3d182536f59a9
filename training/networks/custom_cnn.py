"""A plain CNN, trained from scratch."""

import keras

from app.bundle import Architecture
from training.errors import WeightsError

__all__ = ["custom_cnn"]

_FILTERS = (32, 64, 128, 256, 256)


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
    for number, filters in enumerate(_FILTERS, start=1):
        x = _convolution(filters, f"conv{number}")(x)
        if number == len(_FILTERS):
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
