"""The GPU's graph, half precision compiled by XLA, run on a CPU beside the one in float32."""

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.bundle import Bundle
from app.engines import Batch, Cut
from app.engines.tensorflow import TensorFlowEngine, retyped


# Relative errors allowed: of the logits, and of the maps.
@pytest.mark.parametrize(
    ("dtype", "of_logits", "of_maps"),
    [(tf.float32, 1e-4, 1e-4), (tf.float16, 0.002, 0.01), (tf.bfloat16, 0.03, 0.06)],
)
def test_compiled_half_precision_agrees(
    shipped_bundle: Bundle,
    dtype: tf.DType,
    of_logits: float,
    of_maps: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, half = (
        TensorFlowEngine(shipped_bundle, device="cpu", precision="float32") for _ in range(2)
    )
    logits = half._tensors["logits"].partition(":")[0]
    monkeypatch.setattr(half, "_graph", retyped(half._graph, dtype, logits))
    monkeypatch.setattr(half, "on_gpu", True)  # compiled by XLA, as for one
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    size = shipped_bundle.card.input.size
    cell = np.arange(size) * 8 // size  # of each pixel, by row and by column
    image = coarse[:, cell][:, :, cell]
    batch = Batch(image, np.array([-1, 3], np.int32), np.array([-1, 5], np.int32))

    expected, actual = plain.run(Cut.EXPLAIN, batch), half.run(Cut.EXPLAIN, batch)

    np.testing.assert_array_equal(actual["target_index"], expected["target_index"])
    for name in set(expected) - {"target_index", "probabilities"}:
        assert actual[name].dtype == np.float32
        scale = np.linalg.norm(expected["hirescam" if name == "gradcam" else name])
        limit = of_logits if name == "logits" else of_maps
        assert np.linalg.norm(actual[name] - expected[name]) <= limit * scale, name
    # Not rounded to half precision: a softmax of its own logits, to float32's last digits.
    exact = np.exp(actual["logits"] - actual["logits"].max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(actual["probabilities"], exact, rtol=1e-5)


def test_all_of_float32_is_retyped_but_the_head() -> None:
    def work(image: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.cast(image, tf.float32) * 0.5
        kernel = tf.cast(tf.constant(np.eye(3), tf.float16), tf.float32)
        logits = tf.identity(tf.matmul(features, kernel) + tf.constant([0.1, 0.2, 0.3]), "logits")
        chosen = tf.where(target < 0, tf.argmax(logits, axis=-1, output_type=tf.int32), target)
        seed = tf.cast(tf.equal(chosen[:, None], tf.range(3)), tf.float32)
        gradient = tf.matmul(seed, kernel, transpose_b=True)
        likely = tf.identity(tf.nn.softmax(logits), "probabilities")
        return likely, tf.identity(gradient, "gradient")

    specs = tf.TensorSpec((2, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)
    graph = tf.function(work).get_concrete_function(*specs).graph.as_graph_def()
    half = retyped(graph, tf.bfloat16, "logits")

    typed = [node for node in half.node if "T" in node.attr]
    kinds = {node.name: tf.as_dtype(node.attr["T"].type) for node in typed}
    assert {kinds[name] for name in ("MatMul", "logits", "probabilities")} == {tf.float32}
    assert {kinds[name] for name in ("mul", "MatMul_1", "gradient")} == {tf.bfloat16}

    def run(graph: tf.compat.v1.GraphDef) -> list[npt.NDArray[np.float32]]:
        fetches = [f"{name}:0" for name in ("logits", "probabilities", "gradient")]
        feeds = {"image:0": [[1, 2, 3], [6, 5, 4]], "target:0": [-1, 2]}
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            tf.import_graph_def(graph, name="")
            return [value.astype(np.float32) for value in session.run(fetches, feeds)]

    for ours, plain in zip(run(half), run(graph), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-6)
