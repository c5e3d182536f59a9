"""The shipped network as a Keras model, for the peers that need one."""

from typing import Any

import numpy as np

from benchmarks import pictures

LAST = "conv5_block3_out"


def load(weights: str) -> Any:
    """ResNet50 with a head for the weights' classes, from `network_input` to logits.

    Args:
        weights: a file of `benchmarks.weights.write`. Its convolutions include their batch norms,
            so those of the model are set to the identity.
    """
    import keras

    arrays, size = np.load(weights), input_size(weights)
    body = keras.applications.ResNet50(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    head = keras.layers.Dense(arrays["predictions/kernel"].shape[1], name="predictions")
    model = keras.Model(body.input, head(body.output))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            layer.set_weights(
                [np.ones(size), np.zeros(size), np.zeros(size), np.full(size, 1 - layer.epsilon)]
            )
        elif layer.weights:
            name = layer.name.removesuffix("_conv")
            name = name if name == "predictions" else f"{name}_bn"
            layer.set_weights([arrays[f"{name}/kernel"], arrays[f"{name}/bias"]])
    return model


def input_size(weights: str) -> int:
    """Side of the square input in pixels, from a file of `benchmarks.weights.write`."""
    return int(np.load(weights)["input_size"])


def picture(weights: str) -> Any:
    """The made picture at the network's input size, preprocessed by `network_input`."""
    size = input_size(weights)
    return network_input(pictures.pixels(size, size))


def network_input(image: Any) -> Any:
    """Preprocess for the exported network: RGB minus ImageNet's means, float32 `[1, S, S, 3]`."""
    return (image.astype(np.float32) - (123.68, 116.779, 103.939)).astype(np.float32)[None]
