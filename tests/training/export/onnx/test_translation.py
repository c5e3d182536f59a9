"""Each operation in ONNX Runtime against TensorFlow: on maps in either order, and on features."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from app.engines.tensorflow import retyped
from tests.training.export.onnx.run import checked, run
from tests.training.small_networks import NETWORKS
from training.errors import ExportError
from training.export.explained import ExplainedNetwork
from training.export.foreground import channel_sum
from training.export.onnx.translation import translated
from training.graph.gradients import shapes
from training.graph.keras_reader import from_keras
from training.networks.custom_cnn import custom_cnn
from training.networks.preprocessing import Preprocessing

Array = npt.NDArray[Any]


def _normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


MAPS = _normal(5, 3, 5, 7, 4)
KERNEL = _normal(6, 3, 2, 4, 6)
CHANNELS = _normal(7, 4)
POSITIONS = _normal(8, 5, 7, 4)


def _first(x: tf.Tensor) -> tf.Tensor:
    """The same values by a convolution, whose result ONNX has with the channels first."""
    return tf.nn.conv2d(x, tf.constant(np.eye(4, dtype=np.float32)[None, None]), 1, "VALID")


def _scaled(scalar: tf.Tensor, channels: tf.Tensor, *values: tf.Tensor) -> list[tf.Tensor]:
    return [value * scalar * channels for value in values]


def _translated(function: Callable[..., Any], *arrays: Array) -> tuple[list[Array], list[Array]]:
    """Outputs by TensorFlow and by ONNX Runtime."""
    specs = [
        tf.TensorSpec((None, *array.shape[1:]), array.dtype, name=f"x{number}")
        for number, array in enumerate(arrays)
    ]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(concrete)
    outputs = {f"y{number}": tensor for number, tensor in enumerate(frozen.outputs)}
    model = checked(translated(frozen.inputs, outputs))
    actual = run(model, {f"x{number}": array for number, array in enumerate(arrays)})
    expected = [tensor.numpy() for tensor in frozen(*map(tf.constant, arrays))]
    return expected, [actual[name] for name in outputs]


def _check(function: Callable[..., Any], *arrays: Array) -> None:
    expected, actual = _translated(function, *arrays)
    assert len(expected) == len(actual) > 0
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


OPERATIONS: dict[str, Callable[[tf.Tensor], Any]] = {
    # Broadcasting: what has fewer axes lines up with the channels.
    "channels": lambda x: x * CHANNELS + x,
    "positions": lambda x: tf.nn.relu(x) + POSITIONS * tf.minimum(x, 0.0),
    "rows": lambda x: x - tf.reduce_mean(x, axis=(1, 2), keepdims=True),
    "computed channels": lambda x: x * tf.reduce_sum(x, axis=(0, 1, 2)),
    "shared factors": lambda x: _scaled(
        tf.constant(2.5), tf.constant(CHANNELS), x, tf.reduce_mean(x, axis=(1, 2))
    ),
    "comparisons": lambda x: [
        tf.cast(a, tf.float32)
        for a in (x > 0.1, x >= 0.1, x < 0.1, x <= 0.1, tf.logical_and(x > 0.1, x < 0.5))
    ],
    "functions": lambda x: [
        tf.exp(x),
        tf.sigmoid(x),
        tf.tanh(x),
        tf.math.erf(x),
        -x,
        tf.sqrt(tf.nn.relu(x)),
        x / (2.0 + x * x),
        tf.maximum(x, 0.2),
        tf.clip_by_value(x, -0.5, 0.5),
        tf.where(x > 0, x, CHANNELS),
        tf.zeros_like(x) + x,
        tf.ones_like(x) * x,
        tf.fill(tf.shape(x), 2.5) * x,
    ],
    "softmax": lambda x: tf.nn.softmax(x),
    "reductions": lambda x: [
        reduce(x, axis=axis, keepdims=keepdims)
        for reduce in (tf.reduce_mean, tf.reduce_sum, tf.reduce_max, tf.reduce_min)
        for axis in ((1, 2), -1, 1, (2, 3))
        for keepdims in (False, True)
    ],
    "argmax": lambda x: tf.argmax(tf.reduce_max(x, axis=(1, 2)), axis=-1, output_type=tf.int32),
    "squeeze": lambda x: [
        tf.squeeze(x[:, :, :, :1], axis=-1),
        tf.squeeze(x[:, :1, :1, :], axis=(1, 2)),
        tf.squeeze(x[:, :, :1, :], axis=2),
    ],
    "expand_dims": lambda x: tf.expand_dims(tf.reduce_mean(x, axis=-1), -1) * x,
    "pad": lambda x: [
        tf.pad(x, [(0, 0), (1, 2), (3, 4), (0, 5)]),
        tf.pad(x, [(0, 0), (1, 0), (0, 2), (0, 0)], constant_values=-7.0),
    ],
    "concat": lambda x: [tf.concat([x, 2.0 * x, tf.nn.relu(x)], axis) for axis in (-1, 1)],
    "split": lambda x: [*tf.split(x, [1, 3], axis=-1), *tf.split(x, [2, 2, 1], axis=1)],
    "equal split": lambda x: tf.split(x, 2, axis=-1),
    "slices": lambda x: [
        x[:, 1:4, 2:, :],
        x[:, ::2, 1:6:3, :],
        x[:, ::-1, ::-1],
        x[:, 3:0:-1],
        x[:, 2],
        x[:, -1, :, 1:],
        x[:, None, 1],
        x[:, :-1, :, -2:],
        x[..., ::-1],
        x[:, 1:, ..., 2],
        x[..., None, 1:, :],
    ],
    "stack": lambda x: [tf.stack([x, -x], axis=3), tf.stack(tf.unstack(x, axis=1), axis=2)],
    "reshape": lambda x: [
        tf.reshape(x, (-1, 140)),
        tf.reshape(x, (-1, 7, 5, 4)),
        tf.reshape(tf.reduce_mean(x, axis=(1, 2)), (-1, 1, 1, 4)) * x,
        tf.reshape(tf.reduce_mean(x, axis=(1, 2), keepdims=True), (-1, 2, 2)),
        tf.reshape(tf.reduce_mean(x, axis=-1, keepdims=True), (-1, 35)),
        tf.reshape(tf.reduce_mean(x, axis=-1), (-1, 5, 7, 1)) + x,
    ],
    "transpose": lambda x: [tf.transpose(x, (0, 3, 1, 2)), tf.transpose(x, (0, 2, 1, 3))],
    "products": lambda x: [
        tf.linalg.matmul(tf.reduce_mean(x, axis=(1, 2)), KERNEL[0, 0]),
        tf.linalg.matmul(tf.reduce_mean(x, axis=(1, 2)), KERNEL[0, 0].T, transpose_b=True),
        tf.linalg.matmul(x[:, 0], x[:, 1], transpose_b=True),
        tf.linalg.matmul(x[:, 0], x[:, 1], transpose_a=True),
    ],
    "convolutions": lambda x: [
        tf.nn.conv2d(x, KERNEL, 1, "VALID"),
        tf.nn.conv2d(x, KERNEL, (2, 3), "SAME"),
        tf.nn.conv2d(x, KERNEL, 2, [(0, 0), (1, 2), (0, 3), (0, 0)]),
        tf.nn.conv2d(x, KERNEL, 1, "SAME", dilations=2),
        tf.nn.conv2d(x, KERNEL[:, :, :2], 1, "SAME"),  # two groups
        tf.nn.conv2d(x, tf.constant(KERNEL)[::-1, ::-1], 1, "SAME"),
        tf.nn.depthwise_conv2d(x, KERNEL, (1, 1, 1, 1), "VALID"),
        tf.nn.depthwise_conv2d(x, KERNEL[..., :1], (1, 2, 2, 1), "SAME"),
    ],
    "poolings": lambda x: [
        tf.nn.max_pool2d(x, 3, 2, "SAME"),
        tf.nn.max_pool2d(x - 9.0, (3, 2), (1, 2), "VALID"),
        tf.nn.avg_pool2d(x, 3, 2, "SAME"),
        tf.nn.avg_pool2d(x, (2, 3), 1, "VALID"),
    ],
}


@pytest.mark.parametrize("order", ["channels last", "channels first"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_tensorflow(name: str, order: str) -> None:
    operation = OPERATIONS[name]
    if order == "channels last":
        _check(operation, MAPS)
    else:
        _check(lambda x: operation(_first(x)), MAPS)


def test_maps_stay_channels_first_between_convolutions() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        y = tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME") + KERNEL[0, 0, 0])
        y = tf.pad(y, [(0, 0), (1, 1), (1, 1), (0, 0)])[:, :-1, ::2]
        y = tf.concat([y, y * tf.reduce_mean(y, axis=(1, 2), keepdims=True)], axis=-1)
        return tf.reduce_mean(tf.nn.max_pool2d(y, 2, 2, "SAME"), axis=(1, 2))

    concrete = tf.function(block).get_concrete_function(tf.TensorSpec((None, 5, 7, 4), name="x"))
    graph = translated(concrete.inputs, {"y": concrete.outputs[0]}).proto("test")
    (image,) = (node for node in graph.node if node.op_type == "Transpose" and "x" in node.input)
    others = [node for node in graph.node if node.op_type == "Transpose" and node != image]

    constants = {initializer.name for initializer in graph.initializer}
    assert all(set(node.input) <= constants for node in others)


def test_operations_without_a_rule_are_named() -> None:
    def work(x: tf.Tensor) -> tf.Tensor:
        return tf.math.cumsum(tf.math.sinh(x), axis=1) + tf.math.sinh(x)

    with pytest.raises(ExportError, match="support TensorFlow's Cumsum, Sinh, which"):
        _translated(work, MAPS)


def test_what_has_to_be_constant_is_named() -> None:
    with pytest.raises(ExportError, match=r"'strided_slice' \(StridedSlice\) is computed"):
        _translated(lambda x: tf.reduce_sum(x, axis=tf.cast(x, tf.int32)[0, 0, 0, 0]), MAPS)


# -- networks, forwards and backwards


def _custom_cnn() -> keras.Model:
    keras.utils.set_random_seed(6)
    return custom_cnn(5, input_size=32)


EXPLAINED = NETWORKS | {"custom_cnn": (_custom_cnn, ("conv2", "conv4", "conv6"))}


LIMITS = {"float32": 1e-4, "float16": 0.03}
# On an x86 CPU, ONNX Runtime computes float16 in float32 and rounds for some operations only. With
# global max pooling, it then compares unrounded values with the rounded maximum, and finds none.
PRECISIONS = [
    (name, precision)
    for name in EXPLAINED
    for precision in LIMITS
    if (name, precision) != ("branched", "float16")
]


@pytest.mark.parametrize(("name", "precision"), PRECISIONS)
def test_networks_are_those_of_tensorflow(name: str, precision: str) -> None:
    build, layers = EXPLAINED[name]
    model = build()
    network, size = from_keras(model), model.input_shape[1]
    sizes = shapes(network, size)
    explained = ExplainedNetwork(
        network,
        input_size=size,
        layers=layers,
        projections={layer: channel_sum(sizes[layer][-1]) for layer in layers},
        preprocessing=Preprocessing.NONE,
    )
    feed: dict[str, Array] = {
        "image": np.random.default_rng(9).integers(0, 256, (4, size, size, 3), dtype=np.uint8),
        "class_index": np.array([-1, 0, 3, -1], np.int32),
        "versus_index": np.array([-1, -1, 1, 2], np.int32),
    }
    expected = {name: value.numpy() for name, value in explained.serve(**feed).items()}

    frozen = convert_variables_to_constants_v2(explained.serve.get_concrete_function())
    names = dict(zip(sorted(expected), [tensor.name for tensor in frozen.outputs], strict=True))
    graph = frozen.graph.as_graph_def()
    if precision == "float16":
        graph = retyped(graph, tf.float16, names["logits"].partition(":")[0])
    with tf.Graph().as_default() as source:
        tf.import_graph_def(graph, name="")
    inputs = [source.get_tensor_by_name(f"{name}:0") for name in feed]
    outputs = {name: source.get_tensor_by_name(names[name]) for name in names}
    actual = run(checked(translated(inputs, outputs)), feed)

    assert set(actual) == set(expected)
    for output, values in expected.items():
        assert actual[output].dtype == values.dtype
        error = np.linalg.norm(actual[output] - values) / np.linalg.norm(values)
        assert error <= LIMITS[precision], (output, error)
