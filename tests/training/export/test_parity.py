"""Every output, on every engine and in every precision, against TensorFlow in float32."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import Architecture, Bundle, load
from app.engines import Batch, Cut, Engine, create, output_names
from app.engines.tensorflow import TensorFlowEngine
from tests import needs
from tests.training.export.onnx.run import ONNXRuntime, converted

BATCHES = (1, 3, 8)

# The largest relative error, ||a - b|| / ||b|| over a batch. In half precision, with 8 (bfloat16)
# or 11 (float16) significant bits, the error depends on how far the terms of an output cancel (see
# `_scale`). Besides, where rounding moves an activation across zero, the ReLU's mask flips in the
# backward pass.
LIMITS = {"float32": 1e-4, "float16": 0.004, "bfloat16": 0.03}
EARLY_LIMITS = {
    "float32": {"gradcam": 1e-3, "gradcampp": 1e-3, "layercam": 2e-3, "hirescam": 2e-3},
    "float16": {"gradcam": 0.03, "layercam": 0.03, "hirescam": 0.03},
    "bfloat16": {"gradcam": 0.12, "layercam": 0.06, "hirescam": 0.08},
}


LITE_IN_BFLOAT16 = 8.0
"""Times the limits: rounding adds up over the three convolutions of each of its 21 blocks."""


def _limit(bundle: Bundle, precision: str, output: str) -> float:
    method, _, layer = output.partition("_")
    limit = LIMITS[precision]
    limit = EARLY_LIMITS[precision].get(method, limit) if layer else limit
    is_lite = bundle.card.architecture == Architecture.EFFICIENTNET_LITE2
    return LITE_IN_BFLOAT16 * limit if is_lite and precision == "bfloat16" else limit


def _scale(expected: dict[str, npt.NDArray[Any]], name: str) -> float:
    """The norm ||b|| of an output; where its terms cancel, the norm of the terms instead.

    At an earlier layer, HiResCAM's terms cancel almost completely. LayerCAM sums the positive ones
    alone, so its norm is their size. An output whose ReLU has removed the negative part is measured
    against HiResCAM, which keeps it.
    """
    method, _, layer = name.partition("_")
    signed = f"hirescam_{layer}" if layer else "hirescam"
    names = [name]
    if method in ("gradcam", "gradcampp", "layercam"):
        names.append(signed)
    if method == "hirescam" and layer:
        names.append(f"layercam_{layer}")
    return max(float(np.linalg.norm(expected[name])) for name in names)


def _photo_like(size: int, rows: int) -> npt.NDArray[np.uint8]:
    """Smooth random pictures, uint8 `[rows, size, size, 3]`. Plain noise activates little."""
    import cv2

    rng = np.random.default_rng(rows)
    coarse = rng.integers(0, 256, (rows, 9, 9, 3), dtype=np.uint8)
    return np.stack(
        [cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC) for cells in coarse]
    )


def _requests(bundle: Bundle, rows: int) -> Batch:
    classes = len(bundle.card.labels)
    rng = np.random.default_rng(rows)
    target = rng.integers(-1, classes, rows).astype(np.int32)
    versus = np.where(rng.random(rows) < 0.5, -1, (target + 1) % classes).astype(np.int32)
    return Batch(_photo_like(bundle.card.input.size, rows), target, versus)


@pytest.fixture(scope="module", params=["small", "shipped", "lite"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    bundle: Bundle = request.getfixturevalue(f"{request.param}_bundle")
    return bundle


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[int, dict[str, npt.NDArray[Any]]]:
    """What TensorFlow makes of each number of rows, before another engine changes its options.

    They are run together, which compiles one graph.
    """
    engine = TensorFlowEngine(bundle, device="cpu", precision="float32")
    batches = [_requests(bundle, rows) for rows in BATCHES]
    images, targets, others = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("image", "class_index", "versus_index")
    )
    outputs = engine.run(Cut.EXPLAIN_DEEP, Batch(images, targets, others))
    ends = np.cumsum(BATCHES)
    return {
        rows: {name: array[end - rows : end] for name, array in outputs.items()}
        for rows, end in zip(BATCHES, ends, strict=True)
    }


@cache
def _openvino(version_dir: Path, precision: str) -> Engine:
    """One for all tests that need it: to compile a graph takes longer than to run it."""
    return create(load(version_dir), engine="openvino", device="cpu", precision=precision)


@pytest.fixture(scope="module")
def engine(
    request: pytest.FixtureRequest,
    bundle: Bundle,
    reference: dict[int, dict[str, npt.NDArray[Any]]],
) -> Engine | ONNXRuntime:
    name, precision = request.param
    if name == "onnx":
        return converted(bundle.path, precision)
    with needs.precision():
        if name == "openvino":
            return _openvino(bundle.path, precision)
        return create(bundle, engine=name, device="cpu", precision=precision)


ENGINES = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("tensorflow", "bfloat16"),
    ("onnx", "float32"),
    ("onnx", "float16"),
)
SHIPPED = {
    "shipped": ENGINES,
    "lite": (("openvino", "float32"), ("openvino", "bfloat16"), ("onnx", "float32")),
}
FAST = {
    "shipped": (("openvino", "bfloat16"), ("onnx", "float32")),
    "lite": (("openvino", "float32"),),
}
PAIRS = [
    *(pytest.param("small", engine, id=f"small-{'-'.join(engine)}") for engine in ENGINES),
    *(
        pytest.param(
            model,
            engine,
            id=f"{model}-{'-'.join(engine)}",
            # A rule of one engine and precision is held by the small model.
            marks=[] if engine in FAST[model] else [pytest.mark.slow],
        )
        for model, engines in SHIPPED.items()
        for engine in engines
    ),
]


@pytest.mark.parametrize(("bundle", "engine"), PAIRS, indirect=True)
@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("cut", list(Cut))
def test_outputs_agree(
    bundle: Bundle,
    reference: dict[int, dict[str, npt.NDArray[Any]]],
    engine: Engine | ONNXRuntime,
    cut: Cut,
    rows: int,
) -> None:
    expected = reference[rows]

    actual = engine.run(cut, _requests(bundle, rows))

    assert set(actual) == set(output_names(bundle.card, cut))
    errors = {}
    for name, array in actual.items():
        if name == "target_index":
            np.testing.assert_array_equal(array, expected[name])
            continue
        assert array.dtype == np.float32
        assert array.shape == expected[name].shape
        errors[name] = float(np.linalg.norm(array - expected[name])) / _scale(expected, name)
    over = {
        name: error
        for name, error in errors.items()
        if not error <= _limit(bundle, engine.info.precision, name)
    }
    assert not over, f"{engine.info.name} {engine.info.precision}: {over}"


def test_foreground_and_novelty_are_among_what_is_compared(small_bundle: Bundle) -> None:
    names = output_names(small_bundle.card, Cut.EXPLAIN)

    assert {"foreground", "foreground_early_out", "novelty"} <= set(names)


@pytest.mark.parametrize("kind", [_openvino, converted])
def test_rows_do_not_depend_on_their_company(
    bundle: Bundle, kind: Callable[[Path, str], Engine | ONNXRuntime]
) -> None:
    engine = kind(bundle.path, "float32")
    batch = _requests(bundle, 5)
    together = engine.run(Cut.EXPLAIN_DEEP, batch)

    for row in range(len(batch)):
        alone = engine.run(Cut.EXPLAIN_DEEP, batch.rows(slice(row, row + 1)))
        for name, array in alone.items():
            np.testing.assert_allclose(array[0], together[name][row], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [_openvino, converted])
def test_identities_hold_in_the_shipped_model(
    shipped_bundle: Bundle, kind: Callable[[Path, str], Engine | ONNXRuntime]
) -> None:
    engine = kind(shipped_bundle.path, "float32")
    batch = _requests(shipped_bundle, 8)
    rows = engine.run(Cut.EXPLAIN, Batch.of(batch.image, batch.class_index))
    cam, chosen = rows["cam"], rows["target_index"]
    logit = rows["logits"][np.arange(8), chosen]

    np.testing.assert_allclose(rows["gradcam"], np.maximum(cam, 0) / cam[0].size, atol=1e-5)
    np.testing.assert_allclose(rows["hirescam"], cam / cam[0].size, atol=1e-5)
    bias = _bias(shipped_bundle.path)
    np.testing.assert_allclose(logit, cam.mean(axis=(1, 2)) + bias[chosen], rtol=1e-3, atol=1e-3)


def _bias(version_dir: Path) -> npt.NDArray[np.float32]:
    """The last Dense layer's bias, read from the variables rather than computed by the graph."""
    import tensorflow as tf

    prefix = str(version_dir / "variables" / "variables")
    biases = [name for name, shape in tf.train.list_variables(prefix) if "predictions" in name]
    values = [tf.train.load_variable(prefix, name) for name in biases]
    return next(value for value in values if value.ndim == 1)
