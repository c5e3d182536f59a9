"""The GPU's graph, half precision compiled by XLA, run on a CPU beside the one in float32."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.bundle import Bundle
from app.engines import Batch, Cut
from app.engines.base import check_weights
from app.engines.tensorflow import TensorFlowEngine, _ports, _weights, retyped
from app.errors import BundleError


@pytest.fixture(scope="module")
def batch(shipped_bundle: Bundle) -> Batch:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    size = shipped_bundle.card.input.size
    cell = np.arange(size) * 8 // size  # of each pixel, by row and by column
    image = coarse[:, cell][:, :, cell]
    return Batch(image, np.array([-1, 3], np.int32), np.array([-1, 5], np.int32))


@pytest.fixture(scope="module")
def expected(shipped_bundle: Bundle, batch: Batch) -> dict[str, npt.NDArray[Any]]:
    plain = TensorFlowEngine(shipped_bundle, device="cpu", precision="float32")
    return plain.run(Cut.EXPLAIN, batch)


# Relative errors allowed: of the logits, and of the maps.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "of_logits", "of_maps"),
    [(tf.float16, 0.002, 0.01), (tf.bfloat16, 0.03, 0.06)],
)
def test_compiled_half_precision_agrees(
    shipped_bundle: Bundle,
    batch: Batch,
    expected: dict[str, npt.NDArray[Any]],
    dtype: tf.DType,
    of_logits: float,
    of_maps: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = TensorFlowEngine(shipped_bundle, device="cpu", precision="float32")
    logits = half._tensors["logits"].partition(":")[0]
    monkeypatch.setattr(half, "_graph", retyped(half._graph, dtype, logits))
    monkeypatch.setattr(half, "on_gpu", True)  # compiled by XLA, as for one

    actual = half.run(Cut.EXPLAIN, batch)

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


def test_a_card_that_its_model_does_not_fit_is_named(shipped_bundle: Bundle) -> None:
    card = shipped_bundle.card
    spoilt = Bundle(shipped_bundle.path, card.replace(labels=card.labels[:-1]))
    with pytest.raises(BundleError, match="'logits' as float32"):
        TensorFlowEngine(spoilt, device="cpu", precision="float32")


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    class Spoilt(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable([[1.0, np.nan]], name="kernel")

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.uint8)])  # type: ignore[untyped-decorator]
        def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"logits": tf.cast(image, tf.float32)[:, 0, 0, :1] @ self.kernel}

    module = Spoilt()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    loaded = tf.saved_model.load(str(tmp_path))  # holds the variables
    full = loaded.signatures["serving_default"]
    assert list(map(str, _ports(full).values())) == ["uint8 [N, 8, 8, 3]", "float32 [N, 2]"]
    with pytest.raises(BundleError, match="not finite: 'kernel"):
        check_weights(Bundle(tmp_path, card=None), _weights(full))  # type: ignore[arg-type]


def test_what_is_no_saved_model_is_named(shipped_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"abc")
    with pytest.raises(BundleError, match=f"TensorFlow cannot read the SavedModel at {tmp_path}"):
        TensorFlowEngine(Bundle(tmp_path, shipped_bundle.card), device="cpu")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.EIO, "Input/output error"), OSError),
        (tf.errors.ResourceExhaustedError(None, None, "out of memory"), MemoryError),
        (tf.errors.DataLossError(None, None, "corrupted"), BundleError),
    ],
    ids=["disk", "memory", "content"],
)
def test_what_may_pass_is_no_fault_of_the_model(
    shipped_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    raised: type[Exception],
) -> None:
    def load(_: str) -> None:
        raise error

    monkeypatch.setattr(tf.saved_model, "load", load)
    with pytest.raises(raised):
        TensorFlowEngine(shipped_bundle, device="cpu", precision="float32")


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
