import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.small_networks import NETWORKS, small_resnet
from training.errors import ExportError
from training.graph import gradients
from training.graph.keras_reader import from_keras
from training.graph.network import Network


def test_network_computes_what_keras_computes() -> None:
    model = small_resnet()
    network = from_keras(model)
    image = np.random.default_rng(1).normal(0, 1, (3, 32, 32, 3)).astype(np.float32)

    weights = {node.name: dict(node.weights) for node in network.nodes}
    logits = gradients.run(network, weights, image)["predictions"]

    np.testing.assert_allclose(logits, model(image, training=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_network_ends_in_logits(activation: str | None) -> None:
    image = keras.Input((4, 4, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    network = from_keras(
        keras.Model(image, keras.layers.Dense(3, activation=activation, name="head")(pooled))
    )

    assert network.nodes[-1].operation.kind == "dense"
    assert network.classes == 3
    assert network.gap_dense


def test_convolution_with_an_activation_of_its_own_becomes_two_nodes() -> None:
    image = keras.Input((4, 4, 2))
    convolved = keras.layers.Conv2D(2, 3, activation="relu", name="conv")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(convolved)
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(pooled)))

    assert network.node("conv").operation.kind == "relu"
    assert network.node("conv/convolution").operation.kind == "convolution"


def test_network_must_end_in_dense() -> None:
    image = keras.Input((8, 8, 2))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))

    with pytest.raises(ExportError, match="Dense"):
        from_keras(model)


def _agrees(network: Network, model: keras.Model) -> None:
    size = model.input_shape[1]
    image = np.random.default_rng(1).uniform(0, 255, (3, size, size, 3)).astype(np.float32)
    weights = {node.name: dict(node.weights) for node in network.nodes}
    logits = gradients.run(network, weights, image)[network.nodes[-1].name]
    expected = np.asarray(model(image, training=False))
    if np.allclose(expected.sum(axis=1), 1):
        logits = tf.nn.softmax(logits)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    # Random networks may give all classes almost the same: hold the error to their differences.
    assert np.abs(logits - expected).max() <= 1e-2 * np.ptp(expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operation_computes_what_keras_computes(name: str) -> None:
    model = NETWORKS[name][0]()

    _agrees(from_keras(model), model)


@pytest.mark.parametrize(
    "application",
    [
        "MobileNetV2",
        "MobileNetV3Small",
        "EfficientNetB0",
        pytest.param("DenseNet121", marks=pytest.mark.slow),
    ],
)
def test_networks_of_keras_applications_are_read(application: str) -> None:
    backbone = getattr(keras.applications, application)(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    model = keras.Sequential([backbone, keras.layers.Dense(3, activation="softmax")])

    network = from_keras(model)

    _agrees(network, model)
    assert network.gap_dense


def test_layer_used_twice_becomes_two_nodes() -> None:
    image = keras.Input((6, 6, 3))
    twice = keras.layers.Conv2D(3, 1, name="twice")
    pooled = keras.layers.GlobalAveragePooling2D()(twice(twice(image)))
    model = keras.Model(image, keras.layers.Dense(2)(pooled))

    network = from_keras(model)

    assert [node.name for node in network.nodes[:2]] == ["twice", "twice_2"]
    _agrees(network, model)


def test_model_without_a_graph_is_named() -> None:
    with pytest.raises(ExportError, match="'unbuilt'"):
        from_keras(keras.Sequential([keras.layers.Dense(2)], name="unbuilt"))


def test_several_outputs_are_an_error() -> None:
    image = keras.Input((8, 8, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, [keras.layers.Dense(2)(pooled), pooled], name="double")

    with pytest.raises(ExportError, match="'double'"):
        from_keras(model)


def test_arithmetic_on_tensors_is_read() -> None:
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(3, 1, name="conv")(image / 127.5 - 1.0)
    x = (2.0 - x) * 0.5 + x * x
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2)(pooled))

    _agrees(from_keras(model), model)


def test_arithmetic_that_is_not_supported_is_named() -> None:
    image = keras.Input((6, 6, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(1.0 / (image + 1.0))
    model = keras.Model(image, keras.layers.Dense(2)(pooled))

    with pytest.raises(ExportError, match="divide"):
        from_keras(model)


def _head(*layers: keras.layers.Layer) -> keras.Model:
    pooling = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input((8, 8, 3)), pooling, *layers])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([keras.layers.Dense(3, activation="sigmoid", name="head")], "'head'.*multi-label"),
        ([keras.layers.Dense(1, activation="softmax")], "softmax of one output"),
        ([keras.layers.Dense(3, activation="softmax"), keras.layers.Softmax()], "a second softmax"),
        ([keras.layers.Dense(3, activation="tanh", name="head")], r"not in 'head' \(tanh\)"),
    ],
)
def test_head_that_does_not_do(layers: list[keras.layers.Layer], message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        from_keras(_head(*layers))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_output_becomes_two_classes(activation: str | None) -> None:
    model = _head(keras.layers.Dense(1, activation=activation))
    photos = np.random.default_rng(1).normal(0, 3, (5, 8, 8, 3)).astype(np.float32)
    output = np.asarray(model(photos))[:, 0].astype(np.float64)
    second = output if activation else 1 / (1 + np.exp(-output))

    network = from_keras(model)

    weights = {node.name: dict(node.weights) for node in network.nodes}
    logits = gradients.run(network, weights, photos)[network.nodes[-1].name]
    expected = np.stack([1 - second, second], axis=1)
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=1e-5)
    assert network.classes == 2
    assert network.gap_dense


def test_outputs_are_listed_by_name() -> None:
    image = keras.Input((8, 8, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    outputs = {"breed": keras.layers.Dense(2)(pooled), "age": keras.layers.Dense(1)(pooled)}

    with pytest.raises(ExportError, match=r"2 outputs .*'breed'") as caught:
        from_keras(keras.Model(image, outputs))

    assert "\n" not in str(caught.value)
