import keras
import numpy as np
import pytest

from tests.training.nets import small_resnet
from training import gradients
from training.errors import ExportError
from training.network import Operation, from_keras


def test_network_computes_what_keras_computes() -> None:
    model = small_resnet()
    network = from_keras(model)
    image = np.random.default_rng(1).normal(0, 1, (3, 32, 32, 3)).astype(np.float32)

    weights = {node.name: dict(node.weights) for node in network.nodes}
    logits = gradients.run(network, weights, image)["predictions"]

    np.testing.assert_allclose(logits, model(image, training=False), rtol=1e-4, atol=1e-4)


def test_every_batch_norm_after_a_convolution_is_folded() -> None:
    kinds = [node.operation.kind for node in from_keras(small_resnet()).nodes]

    assert "batch_norm" not in kinds
    assert kinds.count("convolution") == 13


def test_folding_is_by_hand_the_same() -> None:
    image = keras.Input((1, 1, 1))
    convolved = keras.layers.Conv2D(1, 1, name="conv")(image)
    normed = keras.layers.BatchNormalization(epsilon=0.25, name="norm")(convolved)
    pooled = keras.layers.GlobalAveragePooling2D()(normed)
    model = keras.Model(image, keras.layers.Dense(2)(pooled))
    model.get_layer("conv").set_weights([np.full((1, 1, 1, 1), 3.0), np.array([1.0])])
    # gamma, beta, mean, variance; the deviation is sqrt(3.75 + 0.25) = 2
    model.get_layer("norm").set_weights([np.array([a]) for a in (4.0, 0.5, 2.0, 3.75)])

    folded = from_keras(model).node("norm")

    assert folded.operation == Operation("convolution", padding="valid")
    assert folded.weights["kernel"].item() == pytest.approx(3 * 4 / 2)
    assert folded.weights["bias"].item() == pytest.approx((1 - 2) * 4 / 2 + 0.5)


def test_batch_norm_is_kept_where_the_convolution_has_another_reader() -> None:
    image = keras.Input((4, 4, 2))
    convolved = keras.layers.Conv2D(2, 1, name="conv")(image)
    normed = keras.layers.BatchNormalization(name="norm")(convolved)
    both = keras.layers.Add()([convolved, normed])
    pooled = keras.layers.GlobalAveragePooling2D()(both)
    network = from_keras(keras.Model(image, keras.layers.Dense(2)(pooled)))

    assert network.node("norm").operation.kind == "batch_norm"
    assert network.node("conv").operation.kind == "convolution"


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
    assert network.node("conv/linear").operation.kind == "convolution"


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LayerNormalization(name="odd"),
        keras.layers.Conv2D(2, 1, activation="tanh", name="odd"),
        keras.layers.Conv2D(2, 3, dilation_rate=2, name="odd"),
        keras.layers.ReLU(max_value=6.0, name="odd"),
        keras.layers.DepthwiseConv2D(3, name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_unsupported_layer_is_named(layer: keras.layers.Layer) -> None:
    image = keras.Input((8, 8, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(layer(image))
    model = keras.Model(image, keras.layers.Dense(2)(pooled))

    with pytest.raises(ExportError, match="'odd'"):
        from_keras(model)


def test_network_must_end_in_dense() -> None:
    image = keras.Input((8, 8, 2))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))

    with pytest.raises(ExportError, match="Dense"):
        from_keras(model)


def test_unknown_layer_is_an_error() -> None:
    with pytest.raises(ExportError, match="no_such_layer"):
        from_keras(small_resnet()).node("no_such_layer")
