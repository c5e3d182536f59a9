"""What happens to a photo before a network's first layer: in training and in the exported graph."""

from enum import StrEnum
from typing import TypeAlias

import tensorflow as tf

__all__ = ["Preprocessing"]

Tensor: TypeAlias = tf.Tensor

_CAFFE_MEANS = (103.939, 116.779, 123.68)
"""Of blue, green and red in ImageNet: `keras.applications.resnet50.preprocess_input`."""


class Preprocessing(StrEnum):
    """What a network wants done outside of itself."""

    CAFFE = "caffe"
    """RGB to BGR, less ImageNet's means."""

    NONE = "none"
    """Nothing: RGB from 0 to 255."""

    def apply(self, photos: Tensor) -> Tensor:
        """Make the network's input.

        Args:
            photos: RGB 0..255 `[N, h, w, 3]`, of any number type.

        Returns:
            float32 of the same shape.
        """
        photos = tf.cast(photos, tf.float32)
        if self is Preprocessing.NONE:
            return photos
        return photos[..., ::-1] - tf.constant(_CAFFE_MEANS)
