"""Our maps against those of tf-keras-vis, an independent implementation, on a flat Keras model."""

import importlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.training.conftest import CLASSES, SIZE
from tests.training.small_networks import LAYERS
from training.export.explained import ExplainedNetwork
from training.export.foreground import Projection
from training.graph.keras_reader import from_keras
from training.networks.preprocessing import Preprocessing

# tf-keras-vis imports SciPy's `zoom` under a deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `zoom`:DeprecationWarning")

BFLOAT16 = "auto_mixed_precision_onednn_bfloat16"

PEERS = {"gradcam": ("gradcam", "Gradcam"), "layercam": ("layercam", "Layercam")}
"""Our methods, and the module and class of theirs. Their Grad-CAM++ normalises alpha, unlike the
paper, so it is not compared."""


@pytest.fixture(scope="module")
def exact(
    keras_model: keras.Model, projections: dict[str, Projection]
) -> Iterator[ExplainedNetwork]:
    """In float32 throughout: an engine of an earlier test may have set TensorFlow to bfloat16."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({BFLOAT16: False})
    network = from_keras(keras_model)
    yield ExplainedNetwork(
        network,
        input_size=SIZE,
        layers=LAYERS,
        projections=projections,
        float32_kernels=[node.name for node in network.nodes],
    )
    tf.config.optimizer.set_experimental_options({BFLOAT16: before.get(BFLOAT16, False)})


def _peer_maps(
    model: keras.Model, method: str, photos: npt.NDArray[np.uint8], target: int, layer: str
) -> npt.NDArray[np.float32]:
    module, name = PEERS[method]
    scores = importlib.import_module("tf_keras_vis.utils.scores")
    explainer: Any = getattr(importlib.import_module(f"tf_keras_vis.{module}"), name)(
        model, clone=False
    )
    maps: npt.NDArray[np.float32] = explainer(
        scores.CategoricalScore([target] * len(photos)),
        np.asarray(Preprocessing.CAFFE.apply(tf.constant(photos))),
        penultimate_layer=layer,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )
    return np.asarray(maps)


@pytest.mark.parametrize("layer", ["middle_out", "last_out"])
@pytest.mark.parametrize("method", PEERS)
def test_raw_maps_are_those_of_tf_keras_vis(
    keras_model: keras.Model, exact: ExplainedNetwork, method: str, layer: str
) -> None:
    scales = []
    photos = np.random.default_rng(5).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    for target in range(CLASSES):
        index = tf.fill([3], tf.constant(target))
        ours = exact.serve(tf.constant(photos), index, tf.fill([3], tf.constant(-1)))
        expected = _peer_maps(keras_model, method, photos, target, layer)

        scales.append(float(np.abs(expected).max()))
        scale = scales[-1] or 1.0  # a class without positive evidence has an empty map
        np.testing.assert_allclose(
            ours[f"{method}_{layer}"].numpy() / scale, expected / scale, atol=1e-4
        )
    assert np.count_nonzero(scales) >= CLASSES - 1
