"""Networks rewritten: the same function, with fewer operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.small_networks import NETWORKS, small_resnet
from training.graph import gradients
from training.graph.folding import fold_zero_padding
from training.graph.keras_reader import from_keras
from training.graph.network import Network, Node, Operation

Margins = tuple[tuple[int, int], tuple[int, int]]


def _network(margins: Margins, *, padding: str = "valid", taps: int = 3) -> Network:
    rng = np.random.default_rng(1)
    convolution = Operation("convolution", strides=(2, 1), padding=padding)
    weights = {"kernel": rng.normal(0, 1, (taps, taps, 3, 4)), "bias": rng.normal(0, 1, 4)}
    return Network(
        "image",
        (
            Node("pad", Operation("zero_padding", margins=margins), ("image",), {}),
            Node("convolution", convolution, ("pad",), weights),
        ),
    )


def _run(network: Network) -> tf.Tensor:
    photos = tf.constant(np.random.default_rng(2).normal(0, 1, (2, 8, 7, 3)), tf.float32)
    weights = {node.name: dict(node.weights) for node in network.nodes}
    return gradients.run(network, weights, photos)["convolution"]


@pytest.mark.parametrize("margins", [((1, 1), (1, 1)), ((2, 0), (1, 2))])
def test_zero_padding_goes_into_the_convolution(margins: Margins) -> None:
    network = _network(margins)

    folded = Network("image", fold_zero_padding(network.nodes))

    assert [node.name for node in folded.nodes] == ["convolution"]
    np.testing.assert_allclose(_run(folded), _run(network), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        _network(((1, 1), (1, 1)), padding="same"),
        _network(((1, 1), (1, 1)), taps=1),
        _network(((1, 3), (1, 1))),
    ],
    ids=["padded itself", "one tap", "wider than the kernel"],
)
def test_zero_padding_that_stays(network: Network) -> None:
    assert fold_zero_padding(network.nodes) == network.nodes


def test_zero_padding_with_two_readers_stays() -> None:
    network = _network(((1, 1), (1, 1)))
    nodes = (*network.nodes, Node("relu", Operation("relu"), ("pad",), {}))

    assert fold_zero_padding(nodes) == nodes


def test_every_batch_norm_after_a_convolution_is_folded() -> None:
    kinds = [node.operation.kind for node in from_keras(small_resnet()).nodes]

    assert "batch_norm" not in kinds
    assert kinds.count("convolution") == 13


def test_batch_norm_folded_by_hand() -> None:
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


def test_batch_norm_folds_into_a_depthwise_convolution() -> None:
    model = NETWORKS["mobile"][0]()

    assert from_keras(model).node("depthwise_bn").operation.kind == "depthwise_convolution"
