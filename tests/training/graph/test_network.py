"""What a network says of its head, its classes and its nodes."""

import numpy as np
import pytest

from tests.training.small_networks import NETWORKS, small_resnet
from training.errors import ExportError
from training.graph.keras_reader import from_keras


def test_unknown_layer_is_an_error() -> None:
    with pytest.raises(ExportError, match="no_such_layer"):
        from_keras(small_resnet()).node("no_such_layer")


@pytest.mark.parametrize(
    ("name", "pooled"),
    [("plain", None), ("mobile", "separable"), ("branched", None), ("nested", "last_out")],
)
def test_head_is_recognised(name: str, pooled: str | None) -> None:
    network = from_keras(NETWORKS[name][0]())

    assert network.pooled == pooled
    assert network.gap_dense == (pooled is not None)


def test_classes_can_be_chosen() -> None:
    model = small_resnet()
    network = from_keras(model).with_classes([4, 1])

    head = network.nodes[-1].weights
    np.testing.assert_array_equal(
        head["kernel"], model.get_layer("predictions").kernel.numpy()[:, [4, 1]]
    )
    assert network.classes == len(head["bias"]) == 2
