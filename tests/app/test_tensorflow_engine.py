"""The GPU's graph, half precision compiled by XLA, run on a CPU beside the one in float32."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

from app import bundle as bundles
from app.engines import Cut
from app.engines.tensorflow import TensorFlowEngine, retyped
from app.settings import PROJECT


@pytest.mark.parametrize(
    ("dtype", "limit"), [(tf.float32, 1e-4), (tf.float16, 0.01), (tf.bfloat16, 0.06)]
)
def test_compiled_half_precision_agrees(
    dtype: tf.DType, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.load(PROJECT / "models/dogs10")
    plain, half = (TensorFlowEngine(bundle, device="cpu", precision="float32") for _ in range(2))
    monkeypatch.setattr(half, "_graph", retyped(half._graph, dtype))
    monkeypatch.setattr(half, "on_gpu", True)  # compiled by XLA, as for one
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    image = coarse.repeat(28, axis=1).repeat(28, axis=2)
    asked = (image, np.array([-1, 3], np.int32), np.array([-1, 5], np.int32))

    expected, actual = plain.run(Cut.EXPLAIN, *asked), half.run(Cut.EXPLAIN, *asked)

    np.testing.assert_array_equal(actual["target_index"], expected["target_index"])
    for name in set(expected) - {"target_index"}:
        assert actual[name].dtype == np.float32
        scale = np.linalg.norm(expected["hirescam" if name == "gradcam" else name])
        assert np.linalg.norm(actual[name] - expected[name]) <= limit * scale, name


def test_all_of_float32_is_retyped_and_the_rest_is_not() -> None:
    def work(image: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        return tf.cast(image, tf.float32) * 0.5 + tf.one_hot(index, 3)

    specs = tf.TensorSpec((2, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)
    graph = tf.function(work).get_concrete_function(*specs).graph.as_graph_def()

    types = {
        attribute.type
        for node in retyped(graph, tf.float16).node
        for attribute in node.attr.values()
    }

    assert tf.float32.as_datatype_enum not in types
    assert {kind.as_datatype_enum for kind in (tf.float16, tf.uint8, tf.int32)} <= types
    before = [attribute.type for node in graph.node for attribute in node.attr.values()]
    assert tf.float32.as_datatype_enum in before
