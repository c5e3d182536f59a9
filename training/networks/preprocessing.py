"""Preprocessing of photos before a network's first layer, in training and in the exported graph."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import TypeAlias

import tensorflow as tf

from training.graph.network import Network

__all__ = ["Preprocessing"]

Tensor: TypeAlias = tf.Tensor

_CAFFE_MEANS = (103.939, 116.779, 123.68)
"""Of blue, green and red in ImageNet: `keras.applications.resnet50.preprocess_input`."""


class Preprocessing(StrEnum):
    """What a network expects to be done to photos outside of itself."""

    CAFFE = "caffe"
    """RGB to BGR, minus ImageNet's mean of each channel; not scaled."""

    NONE = "none"
    """Nothing: the network takes RGB from 0 to 255."""

    def apply(self, photos: Tensor) -> Tensor:
        """The network's input, float32 `[N, h, w, 3]`.

        Args:
            photos: RGB 0..255 `[N, h, w, 3]`, of any numeric type.
        """
        photos = self.subtract_means(photos)
        return photos if self is Preprocessing.NONE else photos[..., ::-1]

    def subtract_means(self, photos: Tensor) -> Tensor:
        """`apply` without the exchange of red and blue, float32 `[N, h, w, 3]`.

        Args:
            photos: RGB 0..255 `[N, h, w, 3]`, of any numeric type.
        """
        photos = tf.cast(photos, tf.float32)
        return photos if self is Preprocessing.NONE else photos - tf.constant(_CAFFE_MEANS[::-1])

    def folded_into(self, network: Network) -> tuple[Callable[[Tensor], Tensor], Network]:
        """Split the preprocessing between a function of photos and the network.

        If only convolutions read the input, the exchange of red and blue moves into their kernels,
        where it costs nothing: `sum_c K[c] x[2 - c] = sum_c K[2 - c] x[c]`.

        Returns:
            The function that remains to be applied to photos, and the network that does the rest.
        """
        first_nodes = network.readers(network.input)
        if self is Preprocessing.NONE or any(
            node.operation.kind != "convolution" for node in first_nodes
        ):
            return self.apply, network
        exchanged = {
            node.name: replace(
                # [kh, kw, 3, Cout] with its input channels reversed
                node,
                weights={**node.weights, "kernel": node.weights["kernel"][:, :, ::-1]},
            )
            for node in first_nodes
        }
        nodes = tuple(exchanged.get(node.name, node) for node in network.nodes)
        return self.subtract_means, replace(network, nodes=nodes)
