"""What happens to a photo before a network's first layer: in training and in the exported graph."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import TypeAlias

import tensorflow as tf

from training.network import Network

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
        photos = self.subtract_means(photos)
        return photos if self is Preprocessing.NONE else photos[..., ::-1]

    def subtract_means(self, photos: Tensor) -> Tensor:
        """All of `apply` but the order of the channels."""
        photos = tf.cast(photos, tf.float32)
        return photos if self is Preprocessing.NONE else photos - tf.constant(_CAFFE_MEANS[::-1])

    def folded_into(self, network: Network) -> tuple[Callable[[Tensor], Tensor], Network]:
        """What is left to do to photos, and the network that does the rest.

        Where convolutions alone read the input, their kernels exchange red and blue for nothing.
        """
        readers = network.readers(network.input)
        if self is Preprocessing.NONE or any(
            node.operation.kind != "convolution" for node in readers
        ):
            return self.apply, network
        exchanged = {
            node.name: replace(
                node, weights={**node.weights, "kernel": node.weights["kernel"][:, :, ::-1]}
            )
            for node in readers
        }
        nodes = tuple(exchanged.get(node.name, node) for node in network.nodes)
        return self.subtract_means, replace(network, nodes=nodes)
