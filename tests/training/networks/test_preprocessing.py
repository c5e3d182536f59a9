"""Preprocessing, apart from a network and folded into it."""

import numpy as np
import pytest
import tensorflow as tf

from training.graph import gradients
from training.graph.network import Network, Node, Operation
from training.networks.preprocessing import Preprocessing


def _network(kind: str) -> Network:
    rng = np.random.default_rng(1)
    first = Node("first", Operation(kind), ("image",), {})
    if kind == "convolution":
        weights = {"kernel": rng.normal(0, 1, (3, 3, 3, 4)), "bias": rng.normal(0, 1, 4)}
        first = Node("first", Operation(kind), ("image",), weights)
    return Network("image", (first,))


@pytest.mark.parametrize("preprocessing", Preprocessing)
@pytest.mark.parametrize("kind", ["convolution", "relu"])
def test_folded_into_a_network_it_does_the_same(preprocessing: Preprocessing, kind: str) -> None:
    network = _network(kind)
    photos = np.random.default_rng(2).integers(0, 256, (2, 6, 5, 3), np.uint8)

    rest, folded = preprocessing.folded_into(network)

    def run(network: Network, image: tf.Tensor) -> tf.Tensor:
        weights = {node.name: dict(node.weights) for node in network.nodes}
        return gradients.run(network, weights, image)["first"]

    expected = run(network, preprocessing.apply(photos))
    np.testing.assert_allclose(run(folded, rest(photos)), expected, rtol=1e-5, atol=1e-2)


def test_a_convolution_exchanges_the_channels_itself() -> None:
    network = _network("convolution")

    rest, folded = Preprocessing.CAFFE.folded_into(network)

    kernel = network.nodes[0].weights["kernel"]
    np.testing.assert_array_equal(folded.nodes[0].weights["kernel"], kernel[:, :, ::-1])
    red = np.zeros((1, 1, 1, 3), np.uint8)
    np.testing.assert_allclose(rest(red)[0, 0, 0], [-123.68, -116.779, -103.939], rtol=1e-6)
