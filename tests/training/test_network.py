"""Networks rewritten: the same function, with fewer operations."""

import numpy as np
import pytest
import tensorflow as tf

from training import gradients
from training.network import Network, Node, Operation, fold_zero_padding

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
