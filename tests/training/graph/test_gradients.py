"""Each backward rule, and the whole network's gradient, against GradientTape."""

import numpy as np
import pytest
import tensorflow as tf

from tests.training.small_networks import LAYERS, small_resnet
from training.errors import ExportError
from training.graph import gradients
from training.graph.activations import KINDS
from training.graph.keras_reader import from_keras
from training.graph.network import Node, Operation


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


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("margins", [((1, 1), (1, 1)), ((2, 0), (1, 2))])
def test_convolution_with_margins(
    margins: tuple[tuple[int, int], tuple[int, int]], stride: int
) -> None:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(0, 1, (3, 3, 3, 4)), "bias": rng.normal(0, 1, 4)}
    operation = Operation("convolution", strides=(stride, stride), margins=margins)

    _check(Node("x", operation, ("i",), weights), (2, 8, 7, 3))


def test_dense() -> None:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(0, 1, (6, 4)), "bias": rng.normal(0, 1, 4)}

    _check(Node("x", Operation("dense"), ("i",), weights), (3, 6))


def test_batch_norm() -> None:
    rng = np.random.default_rng(0)
    weights = {"scale": rng.normal(0, 1, 4), "offset": rng.normal(0, 1, 4)}

    _check(Node("x", Operation("batch_norm"), ("i",), weights), (2, 3, 3, 4))


@pytest.mark.parametrize("kind", ["relu", "global_average_pooling", "global_max_pooling"])
def test_operations_without_weights(kind: str) -> None:
    _check(Node("x", Operation(kind), ("i",), {}), (2, 5, 4, 3))


@pytest.mark.parametrize("terms", [2, 3])
def test_add(terms: int) -> None:
    _check(Node("x", Operation("add"), ("i",) * terms, {}), *[(2, 3, 3, 4)] * terms)


def test_zero_padding() -> None:
    operation = Operation("zero_padding", margins=((1, 2), (0, 3)))

    _check(Node("x", operation, ("i",), {}), (2, 4, 5, 3))


def test_cropping() -> None:
    operation = Operation("cropping", margins=((1, 2), (0, 3)))

    _check(Node("x", operation, ("i",), {}), (2, 6, 5, 3))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution(padding: str, stride: int, taps: int, multiplier: int) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(0, 1, (taps, taps, 3, multiplier)),
        "bias": rng.normal(0, 1, 3 * multiplier),
    }
    operation = Operation("depthwise_convolution", strides=(stride, stride), padding=padding)

    _check(Node("x", operation, ("i",), weights), (2, 8, 9, 3))


@pytest.mark.parametrize("kind", ["max_pooling", "average_pooling"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2), (4, 4)])
@pytest.mark.parametrize("window", [(2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("size", [(6, 6), (7, 9)])
def test_pooling(
    kind: str,
    padding: str,
    strides: tuple[int, int],
    window: tuple[int, int],
    size: tuple[int, int],
) -> None:
    operation = Operation(kind, strides=strides, padding=padding, window=window)

    _check(Node("x", operation, ("i",), {}), (2, *size, 3))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("taps", "stride"), [(2, 2), (3, 2), (3, 1), (2, 3)])
def test_first_of_equal_maxima_gets_the_gradient(padding: str, taps: int, stride: int) -> None:
    operation = Operation(
        "max_pooling", strides=(stride, stride), padding=padding, window=(taps, taps)
    )
    rng = np.random.default_rng(1)
    x = tf.constant(rng.integers(0, 3, (4, 9, 8, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = gradients.forward(Node("x", operation, ("i",), {}), {}, [x])
        upstream = tf.constant(rng.normal(0, 1, y.shape), tf.float32)
        loss = tf.reduce_sum(y * upstream)
    expected = tape.gradient(loss, x)

    (actual,) = gradients.backward(Node("x", operation, ("i",), {}), {}, upstream, [x], y)

    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_equal_maxima_of_the_whole_map_share_the_gradient() -> None:
    x = tf.constant([[[[1.0], [3.0]], [[3.0], [0.0]]]])
    node = Node("x", Operation("global_max_pooling"), ("i",), {})

    (actual,) = gradients.backward(node, {}, tf.constant([[8.0]]), [x], tf.constant([[3.0]]))

    np.testing.assert_allclose(actual[0, :, :, 0], [[0, 4], [4, 0]])


@pytest.mark.parametrize(
    "operation",
    [
        *(Operation(kind) for kind in sorted(KINDS - {"prelu", "elu", "general_relu"})),
        Operation("elu", slope=0.7),
        Operation("general_relu", ceiling=1.0),
        Operation("general_relu", slope=0.2),
        Operation("general_relu", slope=0.1, threshold=0.4, ceiling=1.2),
    ],
    ids=lambda operation: operation.kind,
)
def test_activations(operation: Operation) -> None:
    _check(Node("x", operation, ("i",), {}), (2, 5, 4, 3))


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 1, 3)])
def test_prelu(shape: tuple[int, ...]) -> None:
    alpha = np.random.default_rng(0).uniform(0, 1, shape)

    _check(Node("x", Operation("prelu"), ("i",), {"alpha": alpha}), (2, 5, 4, 3))


@pytest.mark.parametrize("kind", ["add", "multiply"])
@pytest.mark.parametrize("second_shape", [(2, 5, 4, 3), (2, 1, 1, 3), (2, 5, 4, 1)])
def test_merging_with_and_without_broadcast(kind: str, second_shape: tuple[int, ...]) -> None:
    _check(Node("x", Operation(kind), ("i", "j"), {}), (2, 5, 4, 3), second_shape)
    _check(Node("x", Operation(kind), ("j", "i"), {}), second_shape, (2, 5, 4, 3))


def test_concatenate() -> None:
    shapes = [(2, 3, 3, 4), (2, 3, 3, 1), (2, 3, 3, 2)]

    _check(Node("x", Operation("concatenate"), ("i", "j", "k"), {}), *shapes)


@pytest.mark.parametrize("shape", [(-1,), (1, 1, -1), (4, 3, 5), (2, -1)])
def test_reshape(shape: tuple[int, ...]) -> None:
    _check(Node("x", Operation("reshape", shape=shape), ("i",), {}), (2, 5, 4, 3))


@pytest.mark.parametrize(
    "operation",
    [
        Operation("max_pooling", strides=(2, 2), window=(3, 3), padding="same"),
        Operation("average_pooling", strides=(2, 2), window=(3, 3), padding="same"),
        Operation("reshape", shape=(4, -1, 3)),
        Operation("cropping", margins=((1, 1), (1, 1))),
        Operation("concatenate"),
        Operation("silu"),
    ],
    ids=lambda operation: operation.kind,
)
def test_gradient_constant_in_space_may_be_given_once(operation: Operation) -> None:
    rng = np.random.default_rng(4)
    node = Node("x", operation, ("i",), {})
    x = tf.constant(rng.normal(0, 1, (2, 6, 6, 3)), tf.float32)
    y = gradients.forward(node, {}, [x])
    once = tf.constant(rng.normal(0, 1, (2, 1, 1, 3)), tf.float32)
    full = tf.broadcast_to(once, y.shape)

    (expected,) = gradients.backward(node, {}, full, [x], y)
    (actual,) = gradients.backward(node, {}, once, [x], y)

    np.testing.assert_allclose(tf.broadcast_to(actual, x.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["add", "multiply"])
def test_broadcast_operand_gets_the_whole_of_a_gradient_constant_in_space(kind: str) -> None:
    rng = np.random.default_rng(9)
    node = Node("x", Operation(kind), ("i", "j"), {})
    inputs = [
        tf.constant(rng.normal(0, 1, shape), tf.float32) for shape in ((2, 5, 4, 3), (2, 1, 1, 3))
    ]
    y = gradients.forward(node, {}, inputs)
    once = tf.constant(rng.normal(0, 1, (2, 1, 1, 3)), tf.float32)

    expected = gradients.backward(node, {}, tf.broadcast_to(once, y.shape), inputs, y)
    actual = gradients.backward(node, {}, once, inputs, y)

    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            tf.broadcast_to(ours, theirs.shape), theirs, rtol=1e-5, atol=1e-5
        )


def test_rule_that_is_missing_names_the_layer() -> None:
    node = Node("odd", Operation("sorting"), ("i",), {})
    x = tf.zeros((1, 4, 4, 1))

    with pytest.raises(ExportError, match="'odd'"):
        gradients.forward(node, {}, [x])
    with pytest.raises(ExportError, match="'odd'"):
        gradients.backward(node, {}, x, [x], x)


def test_shapes_are_those_of_keras() -> None:
    model = small_resnet()

    sizes = gradients.shapes(from_keras(model), 32)

    for layer in (*LAYERS, "pool", "avg_pool", "predictions"):
        assert sizes[layer] == model.get_layer(layer).output.shape[1:]


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
