"""Damaged weights, and kernels that float16 cannot hold: refused, or exported as Keras predicts."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app import engines
from app.bundle import load
from app.engines import Batch, Cut
from tests.training.small_networks import small_resnet
from training.errors import ExportError
from training.export import rounding
from training.export.from_keras import export_keras
from training.export.rounding import Change
from training.graph.keras_reader import from_keras
from training.networks.preprocessing import Preprocessing

CONVOLUTIONS = ("stem", "early_1_conv", "early_2_conv", "middle_3_conv", "last_0_conv")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"breed {index}\n" for index in range(5)), encoding="utf-8")
    return path


def _small() -> keras.Model:
    """Two convolutions with batch norm, GAP and Dense."""
    keras.utils.set_random_seed(3)
    x = image = keras.Input((16, 16, 3))
    for name, filters in (("first", 6), ("second", 8)):
        x = keras.layers.Conv2D(filters, 3, strides=2, name=name)(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(5, name="head")(pooled))
    rng = np.random.default_rng(3)
    for name, size in (("first_bn", 6), ("second_bn", 8)):
        statistics = [rng.uniform(0.5, 1.5, size) for _ in range(4)]
        # Pixels reach 255: the first batch norm brings them to about 1, as a trained one does.
        statistics[3] *= 1e4 if name == "first_bn" else 1
        model.get_layer(name).set_weights(statistics)
    return model


def _scaled(model: keras.Model, factor: float) -> keras.Model:
    """A kernel times `factor`, and the batch norm behind it undoing that."""
    convolution, norm = model.get_layer("second"), model.get_layer("second_bn")
    convolution.set_weights([weights * factor for weights in convolution.get_weights()])
    gamma, beta, mean, variance = norm.get_weights()
    # gamma (f y - f m) / sqrt(f^2 v + epsilon): for a tiny f epsilon rules, and gamma is great
    gamma *= np.sqrt(factor**2 * variance + norm.epsilon) / factor / np.sqrt(variance)
    norm.set_weights([gamma, beta, mean * factor, variance * factor**2])
    return model


def _apart(model: keras.Model, factor: float) -> keras.Model:
    """A kernel times `factor`, undone by a rescaling that no folding reaches."""
    small = keras.layers.Conv2D(16, 1, use_bias=False, name="small")
    x = keras.layers.Activation("relu")(small(model.get_layer("second_relu").output))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / factor)(x))
    whole = keras.Model(model.input, keras.layers.Dense(5, name="head")(pooled))
    small.set_weights([small.get_weights()[0] * factor])
    return whole


def _one_value(model: keras.Model, layer: str, value: float) -> keras.Model:
    kernel, *others = model.get_layer(layer).get_weights()
    kernel.flat[kernel.size // 2] = value
    model.get_layer(layer).set_weights([kernel, *others])
    return model


def _cancelling(great: float) -> keras.Model:
    """Two great terms that cancel, but for a quarter that tells the first two classes apart."""
    image = keras.Input((16, 16, 3))
    copies = keras.layers.Conv2D(2, 1, use_bias=False, activation="relu", name="copies")
    cancels = keras.layers.Conv2D(2, 1, use_bias=False, name="cancels")
    head = keras.layers.Dense(5, use_bias=False, name="head")
    pooled = keras.layers.GlobalAveragePooling2D()(cancels(copies(image)))
    model = keras.Model(image, head(pooled))
    copies.set_weights([np.array([[[[1, 1], [0, 0], [0, 0]]]])])
    cancels.set_weights([np.array([[[[great + 0.25, 0], [-great, 0.125]]]])])
    head.set_weights([np.eye(2, 5) / 8])
    return model


KINDS: dict[str, tuple[Callable[[], keras.Model], int, str | None]] = {
    "usual": (_small, 0, None),
    "beyond float16": (lambda: _one_value(_small(), "head", 7e4), 1, "float32"),
    "scaled up, folded away": (lambda: _scaled(_small(), 1e-8), 0, None),
    "scaled up": (lambda: _apart(_small(), 1e-8), 1, "float32"),
    "scaled up, not all lost": (lambda: _apart(_small(), 1e-6), 1, "float32"),
    # In steps of 1/16 in float16, of 1/2 in bfloat16; of 1/2 and of 4.
    "cancelling in bfloat16": (lambda: _cancelling(100), 0, "float32"),
    "cancelling": (lambda: _cancelling(1000), 3, "float32"),
}
"""By name: a function that builds the network, how many kernels stay in float32, and the precision
that it needs."""

QUICK = ("beyond float16", "cancelling")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in KINDS],
)
def test_service_predicts_what_keras_predicts(
    kind: str, tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, kept, least = KINDS[kind]
    model = build()
    model.save(tmp_path / "own.keras")

    export_keras(tmp_path / "own.keras", labels, tmp_path / "own" / "1")

    bundle = load(tmp_path / "own" / "1")
    assert bundle.card.precision == least
    printed = capsys.readouterr().err
    assert ("serves this model in float32" in printed) == (least is not None), printed
    assert ("in float32.\n" in printed) == (kept > 0), printed
    assert _float32_kernels(bundle.path) == kept
    photos = np.random.default_rng(9).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    index = np.full(4, -1, np.int32)
    expected = np.asarray(model(photos.astype(np.float32), training=False))
    spread = max(1, np.abs(expected - expected.mean(axis=1, keepdims=True)).max())
    for precision in ("float32", "auto"):
        engine = engines.create(bundle, engine="openvino", precision=precision)
        outputs = engine.run(Cut.EXPLAIN_DEEP, Batch(photos, index, index))
        limit = 0.05 if engine.info.precision == "bfloat16" else 0.01
        np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=limit * spread)
        probabilities = outputs["probabilities"]
        np.testing.assert_allclose(probabilities, tf.nn.softmax(expected), atol=limit)
        assert all(np.isfinite(values).all() for values in outputs.values())
        assert engine.info.warnings == []


def _float32_kernels(version_dir: Path) -> int:
    """Of convolutions and the Dense layer."""
    reader = tf.train.load_checkpoint(str(version_dir / "variables" / "variables"))
    types = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    kernels = [name for name, shape in shapes.items() if len(shape) in (2, 4)]
    return sum(types[name] == tf.float32 for name in kernels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight", [0, 3])
def test_weight_that_is_not_finite_is_named(value: float, weight: int) -> None:
    model, rng = small_resnet(), np.random.default_rng(weight)
    layer = model.get_layer(f"{rng.choice(CONVOLUTIONS)}" if weight == 0 else "middle_2_bn")
    weights = layer.get_weights()
    weights[weight].flat[rng.integers(weights[weight].size)] = value
    layer.set_weights(weights)
    name = layer.variables[weight].name

    with pytest.raises(ExportError, match=rf"'{layer.name}': 1 value is NaN .* weight '{name}'"):
        from_keras(model)


def test_weight_that_is_not_finite_in_a_nested_model_is_named() -> None:
    body = small_resnet()
    body = keras.Model(body.input, body.get_layer("last_out").output, name="body")
    _one_value(body, "middle_1_conv", np.nan)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            body,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )

    with pytest.raises(ExportError, match="'middle_1_conv'"):
        from_keras(model)


def test_batch_norm_beyond_float32_is_named() -> None:
    model = small_resnet()
    gamma, beta, mean, variance = model.get_layer("last_2_bn").get_weights()
    model.get_layer("last_2_bn").set_weights([gamma * 1e38, beta, mean, variance * 0])

    with pytest.raises(ExportError, match=r"'last_2_bn'.* at inference"):
        from_keras(model)


def test_output_that_is_not_finite_is_refused(tmp_path: Path, labels: Path) -> None:
    """Each weight is finite, and their products are not."""
    model = _small()
    for layer in ("first_bn", "second_bn"):
        gamma, *others = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([gamma * 1e30, *others])
    model.save(tmp_path / "own.keras")

    with pytest.raises(ExportError, match=r"own\.keras: On \d of 8 test images"):
        export_keras(tmp_path / "own.keras", labels, tmp_path / "own" / "1")

    assert not (tmp_path / "own").exists()


def _logits(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32)


def test_change_by_hand() -> None:
    # softmax of (0, ln 3) is (1/4, 3/4); of (0, 0) it is (1/2, 1/2). Less their mean, the logits
    # move by ln(3) / 2, and the greatest is less than 1.
    change = Change.between(_logits([[0, np.log(3)]]), _logits([[0, 0]]))

    assert change.probability == pytest.approx(0.25, rel=1e-5)
    assert change.logit == pytest.approx(np.log(3) / 2, rel=1e-5)
    assert not change.small


def test_change_that_softmax_does_not_show() -> None:
    moved = Change.between(_logits([[7, 9]]), _logits([[107, 109]]))
    saturated = Change.between(_logits([[-500, 500]]), _logits([[-400, 400]]))

    assert (moved.probability, moved.logit) == (0, 0)
    assert saturated.probability == 0
    assert saturated.logit == pytest.approx(0.2)
    assert not saturated.small


def test_change_to_nan_is_infinite() -> None:
    assert Change.between(_logits([[0, 1]]), _logits([[0, np.nan]])) == Change(np.inf, np.inf)


def test_all_kernels_stay_where_rounding_anywhere_matters() -> None:
    model = _cancelling(1000)
    photos = rounding.probes(16)

    chosen = rounding.choose(from_keras(model), Preprocessing.NONE, photos)

    assert chosen.float32 == ("copies/convolution", "cancels", "head")
    assert "all kernels stay" in str(chosen)
    np.testing.assert_allclose(
        chosen.logits, model(photos.astype(np.float32)), rtol=1e-3, atol=0.05
    )


def test_channels_of_a_depthwise_kernel_lose_apart() -> None:
    """A tiny channel beside great ones, scaled up behind."""
    image = keras.Input((16, 16, 3))
    depthwise = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")
    mixed = keras.layers.Conv2D(5, 1, use_bias=False, name="mixed")
    pooled = keras.layers.GlobalAveragePooling2D()(mixed(keras.layers.ReLU()(depthwise(image))))
    model = keras.Model(image, keras.layers.Dense(5, name="head")(pooled))
    rng = np.random.default_rng(1)
    kernel = rng.uniform(0.01, 0.02, (3, 3, 3, 1))
    kernel[:, :, 1] *= 1e-6
    depthwise.set_weights([kernel])
    mixed.set_weights([rng.normal(size=(1, 1, 3, 5)) * np.array([1, 1e6, 1])[:, None]])

    chosen = rounding.choose(from_keras(model), Preprocessing.NONE, rounding.probes(16))

    assert len(chosen.float32) in (1, 2)  # that of `mixed` too, whose values pass 65504
    assert "depthwise" in chosen.float32[0]


def test_probes_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, second = rounding.probes(20), rounding.probes(20)

    np.testing.assert_array_equal(first, second)
    assert first.shape == (8, 20, 20, 3)
    assert first.dtype.name == "uint8"
    assert len({photo.tobytes() for photo in first}) == 8
