"""Arithmetic on tensors, compared with Keras's own results."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from training.errors import ExportError
from training.graph import gradients
from training.graph.keras_reader import from_keras

Function = Callable[[Any], Any]
applications = keras.applications

FUNCTIONS: dict[str, Function] = {
    "caffe": applications.resnet50.preprocess_input,
    "tf": applications.mobilenet_v2.preprocess_input,
    "torch": applications.densenet.preprocess_input,
    "none": applications.efficientnet.preprocess_input,
    "slice": lambda x: x[..., ::-1],
    "slice of every axis": lambda x: x[:, :, :, ::-1],
    "flip": lambda x: keras.ops.flip(x, axis=-1),
    "take": lambda x: keras.ops.take(x, [2, 0, 1], axis=-1),
    "stack of two": lambda x: keras.ops.stack([x[..., -1], x[..., 0]], axis=-1),
    "by channel": lambda x: (
        keras.ops.subtract(np.array([1, 2, 3], "float32"), x) * np.array([3, 4, 5], "float32")
    ),
    "one number": lambda x: x / np.float32(7) + keras.ops.convert_to_tensor([[2.0]]),
    "cast and negate": lambda x: -keras.ops.cast(x, "float32"),
}


class _Subclassed(keras.Model):  # type: ignore[misc]
    """The function, then a small classifier."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.layers_of_mine = [
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.function(x)
        for layer in self.layers_of_mine:
            x = layer(x)
        return x


def _functional(function: Function) -> keras.Model:
    image = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(function(image))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3)(pooled))


def _sequential(function: Function) -> keras.Model:
    return keras.Sequential([keras.Input((12, 12, 3)), _functional(function)])


def _with_lambda(function: Function) -> keras.Model:
    return _functional(keras.layers.Lambda(function))


def _subclassed(function: Function) -> keras.Model:
    model = _Subclassed(function)
    model(np.zeros((1, 12, 12, 3), np.float32))
    return model


@pytest.mark.parametrize("build", [_functional, _sequential, _with_lambda, _subclassed])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_network_computes_what_keras_computes(
    name: str, build: Callable[[Function], keras.Model]
) -> None:
    model = build(FUNCTIONS[name])
    photos = np.random.default_rng(1).uniform(0, 255, (3, 12, 12, 3)).astype(np.float32)
    expected = np.asarray(model(photos.copy(), training=False))

    network = from_keras(model)

    weights = {node.name: dict(node.weights) for node in network.nodes}
    logits = gradients.run(network, weights, photos)[network.nodes[-1].name]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("function", "layer"),
    [
        (lambda x: 1.0 / (x + 1.0), "divide"),
        (lambda x: keras.ops.cast(x, "uint8"), "cast"),
        (lambda x: x[:, ::-1], "get_item"),
        (lambda x: keras.ops.expand_dims(x[..., 1], -1), "get_item"),
        (lambda x: x + np.ones((12, 12, 3), "float32"), "add"),
    ],
)
def test_unsupported_arithmetic_is_named(function: Function, layer: str) -> None:
    with pytest.raises(ExportError, match=f"{layer}.*not supported"):
        from_keras(_functional(function))


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(ExportError, match="NaN or infinite"):
        from_keras(_functional(lambda x: x / 0.0))
