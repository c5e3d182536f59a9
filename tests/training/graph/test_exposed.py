"""Which layers are exposed, and that every kind of network runs alike in OpenVINO."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.engines.openvino import CORE
from tests.training.small_networks import NETWORKS, RESNET50_LAYERS
from training.errors import ExportError
from training.export.explained import ExplainedNetwork
from training.export.foreground import channel_sum
from training.graph import gradients
from training.graph.exposed import exposed_layers
from training.graph.gradients import shapes
from training.graph.keras_reader import from_keras
from training.graph.network import Network
from training.networks.custom_cnn import custom_cnn
from training.networks.efficientnet_lite import lite2
from training.networks.preprocessing import Preprocessing


def test_of_resnet50_the_last_six_blocks(resnet50: keras.Model) -> None:
    assert exposed_layers(from_keras(resnet50), 64) == RESNET50_LAYERS


def test_of_a_plain_network_each_convolution() -> None:
    network = from_keras(custom_cnn(3, input_size=64))

    assert exposed_layers(network, 64) == tuple(f"conv{number}" for number in range(1, 7))


def test_of_efficientnet_lite2_the_ends_of_blocks() -> None:
    names = exposed_layers(from_keras(lite2(3, input_size=64)), 64)

    assert names[:2] == ("block5d_add", "block6b_add")
    assert names[2:] == ("block6c_add", "block6d_add", "block6e_add", "top_activation")


def _separable(*, gate: bool, projected: bool) -> Network:
    """A block without a shortcut: expanded, filtered channel by channel, and mixed again."""
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="stem")(image)
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, name="expand")(x))
    x = layers.ZeroPadding2D(1)(layers.ReLU(name="expand_act")(x))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides=2, name="depthwise")(x))
    x = layers.ReLU(max_value=6.0, name="depthwise_act")(x)
    if gate:
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(squeezed)])
    x = layers.BatchNormalization()(layers.Conv2D(6, 1, name="mix")(x))
    x = x if projected else layers.ReLU(name="mix_act")(x)
    x = layers.Conv2D(5, 1, activation="relu", name="top")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return from_keras(keras.Model(image, layers.Dense(2)(x)))


@pytest.mark.parametrize("gate", [False, True])
def test_inside_an_inverted_residual_without_a_shortcut_nothing_counts(gate: bool) -> None:
    assert exposed_layers(_separable(gate=gate, projected=True), 16) == ("stem", "top")


def test_a_block_that_ends_in_an_activation_is_no_inverted_residual() -> None:
    names = ("stem", "expand_act", "depthwise_act", "mix_act", "top")

    assert exposed_layers(_separable(gate=False, projected=False), 16) == names


@pytest.mark.parametrize("name", NETWORKS)
def test_of_other_networks(name: str) -> None:
    build, layers = NETWORKS[name]
    model = build()

    assert exposed_layers(from_keras(model), model.input_shape[1]) == layers


def test_never_inside_a_branch() -> None:
    names = exposed_layers(from_keras(NETWORKS["mobile"][0]()), 24)

    assert "depthwise_act" not in names
    assert "excite" not in names


def test_maps_of_one_position_do_not_count() -> None:
    assert exposed_layers(from_keras(custom_cnn(3, input_size=32)), 32)[-1] == "conv6"  # 2 x 2
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", name="first")(image)
    x = keras.layers.Conv2D(2, 6, activation="relu", name="point")(x)
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x))))

    assert exposed_layers(network, 8) == ("first",)


def test_convolutions_stand_in_where_nothing_is_nonlinear() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="linear")(image)
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x))))

    assert exposed_layers(network, 8) == ("linear",)


def test_what_is_pooled_is_exposed_even_after_a_batch_norm() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(x)))

    assert exposed_layers(network, 8) == ("conv", "norm")


def test_network_without_maps_is_an_error() -> None:
    image = keras.Input((8, 8, 3))
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image))))

    with pytest.raises(ExportError, match="no layer with a map"):
        exposed_layers(network, 8)


def test_pooled_map_of_one_position_is_an_error() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", name="first")(image)
    x = keras.layers.Conv2D(2, 6, activation="relu", name="point")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(x)))

    with pytest.raises(ExportError, match="'point', whose map has one position"):
        exposed_layers(network, 8)


def test_size_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ExportError, match="48 x 48 pixels"):
        exposed_layers(from_keras(custom_cnn(3, input_size=64)), 48)


def _explained(
    network: Network,
    size: int,
    preprocessing: Preprocessing,
    *,
    float32: bool = False,
) -> ExplainedNetwork:
    layers, sizes = exposed_layers(network, size), shapes(network, size)
    return ExplainedNetwork(
        network,
        input_size=size,
        layers=layers,
        projections={layer: channel_sum(sizes[layer][-1]) for layer in layers},
        preprocessing=preprocessing,
        float32_kernels=[node.name for node in network.nodes] if float32 else (),
    )


def _openvino(path: Path, inputs: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """By every name that an output has: at the last layer, two."""
    compiled = CORE.compile_model(CORE.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {name: value for output, value in compiled(inputs).items() for name in output.names}


@pytest.mark.parametrize(
    "name",
    [name if name == "mobile" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_openvino_agrees_in_float32(name: str, tmp_path: Path) -> None:
    """Of `custom_cnn`, `test_custom_cnn` has the same."""
    model = NETWORKS[name][0]()
    size = model.input_shape[1]
    explained = _explained(from_keras(model), size, Preprocessing.NONE)
    tf.saved_model.save(explained, str(tmp_path), signatures={"serving_default": explained.serve})
    rng = np.random.default_rng(6)
    inputs = {
        "image": rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8),
        "class_index": np.array([-1, 0, 1, 2], np.int32),
        "versus_index": np.array([-1, -1, 0, 3], np.int32),
    }

    expected = {key: value.numpy() for key, value in explained.serve(**inputs).items()}
    actual = _openvino(tmp_path, inputs)

    assert set(actual) == set(expected)
    for key, value in expected.items():
        error = np.linalg.norm(actual[key] - value)
        assert error <= 2e-3 * np.linalg.norm(value) + 1e-6, key


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_whole_networks_are_those_of_gradient_tape(name: str) -> None:
    model = NETWORKS[name][0]()
    size = model.input_shape[1]
    image = np.random.default_rng(8).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    network = from_keras(model)
    explained = _explained(network, size, Preprocessing.NONE, float32=True)
    outputs = explained.serve(tf.constant(image), tf.constant([1, 2]), tf.constant([-1, 0]))

    # HiResCAM summed over positions is the derivative by a factor on the layer's activations.
    for layer in explained.layers:
        factor = tf.ones((2, 1, 1, 1))
        with tf.GradientTape() as tape:
            tape.watch(factor)
            logits = _scaled(network, image, layer, factor)
            objective = logits[0, 1] + logits[1, 2] - logits[1, 0]
        expected = tf.reshape(tape.gradient(objective, factor), (2,))
        actual = tf.reduce_sum(outputs[f"hirescam_{layer}"], axis=(1, 2))
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def _scaled(network: Network, image: npt.NDArray[np.uint8], layer: str, factor: Any) -> Any:
    """The logits with one layer's activations multiplied."""
    values = {network.input: image.astype(np.float32)}
    for node in network.nodes:
        inputs = [values[name] for name in node.inputs]
        weights = {name: tf.constant(w, tf.float32) for name, w in node.weights.items()}
        values[node.name] = gradients.forward(node, weights, inputs)
        if node.name == layer:
            values[node.name] = values[node.name] * factor
    return values[network.nodes[-1].name]
