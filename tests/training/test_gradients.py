"""Each backward rule against TensorFlow's own gradient, and the whole against GradientTape."""

import numpy as np
import pytest
import tensorflow as tf

from tests.training.nets import LAYERS, small_resnet
from training import gradients
from training.errors import ExportError
from training.network import Node, Operation, from_keras


def _check(node: Node, *shapes: tuple[int, ...]) -> None:
    """Compare a node's backward rule with GradientTape, for a random gradient at its output."""
    rng = np.random.default_rng(7)
    inputs = [tf.constant(rng.normal(0, 1, shape).astype(np.float32)) for shape in shapes]
    weights = {name: tf.constant(value, tf.float32) for name, value in node.weights.items()}
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = gradients.forward(node, weights, inputs)
        upstream = tf.constant(rng.normal(0, 1, output.shape).astype(np.float32))
        loss = tf.reduce_sum(output * upstream)
    expected = tape.gradient(loss, inputs)

    actual = gradients.backward(node, weights, upstream, inputs, output)

    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            tf.broadcast_to(ours, theirs.shape), theirs, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(7, 7), (8, 9), (12, 5)])
def test_convolution(padding: str, stride: int, taps: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(0, 1, (taps, taps, 3, 4)), "bias": rng.normal(0, 1, 4)}
    operation = Operation("convolution", strides=(stride, stride), padding=padding)

    _check(Node("x", operation, ("i",), weights), (2, *size, 3))


def test_convolution_with_unequal_sides() -> None:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(0, 1, (3, 2, 3, 4)), "bias": rng.normal(0, 1, 4)}
    operation = Operation("convolution", strides=(1, 2), padding="same")

    _check(Node("x", operation, ("i",), weights), (2, 6, 7, 3))


def test_dense() -> None:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(0, 1, (6, 4)), "bias": rng.normal(0, 1, 4)}

    _check(Node("x", Operation("dense"), ("i",), weights), (3, 6))


def test_batch_norm() -> None:
    rng = np.random.default_rng(0)
    weights = {"scale": rng.normal(0, 1, 4), "offset": rng.normal(0, 1, 4)}

    _check(Node("x", Operation("batch_norm"), ("i",), weights), (2, 3, 3, 4))


@pytest.mark.parametrize("kind", ["relu", "identity", "global_average_pooling"])
def test_operations_without_weights(kind: str) -> None:
    _check(Node("x", Operation(kind), ("i",), {}), (2, 5, 4, 3))


@pytest.mark.parametrize("terms", [2, 3])
def test_add(terms: int) -> None:
    _check(Node("x", Operation("add"), ("i",) * terms, {}), *[(2, 3, 3, 4)] * terms)


def test_zero_padding() -> None:
    operation = Operation("zero_padding", margins=((1, 2), (0, 3)))

    _check(Node("x", operation, ("i",), {}), (2, 4, 5, 3))


def test_rule_that_is_missing_names_the_layer() -> None:
    node = Node("pool", Operation("max_pooling", window=(2, 2)), ("i",), {})
    x = tf.zeros((1, 4, 4, 1))

    with pytest.raises(ExportError, match="'pool'"):
        gradients.backward(node, {}, x, [x], x)


def test_whole_network_against_gradient_tape() -> None:
    model = small_resnet()
    network = from_keras(model)
    image = tf.constant(np.random.default_rng(3).normal(0, 1, (4, 32, 32, 3)), tf.float32)
    seed = tf.one_hot([0, 3, 2, 2], 5) - tf.one_hot([-1, 1, -1, 0], 5)
    weights = {node.name: dict(node.weights) for node in network.nodes}

    values = gradients.run(network, weights, image)
    slopes = gradients.run_backward(network, weights, values, seed, LAYERS)

    for layer in LAYERS:
        # From the layer on, as Keras has it: the gradient is with respect to the layer's output.
        tail = _from_layer_on(model, layer)
        with tf.GradientTape() as tape:
            tape.watch(values[layer])
            objective = tf.reduce_sum(tail(values[layer]) * seed)
        expected = tape.gradient(objective, values[layer])
        actual = tf.broadcast_to(slopes[layer], expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def _from_layer_on(model: tf.keras.Model, layer: str) -> tf.keras.Model:
    """The part of a Keras model after a layer."""
    import keras

    return keras.Model(model.get_layer(layer).output, model.output)
