"""The exported graph against Keras and GradientTape, which share none of its code."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.bundle import Bundle
from tests.training.small_networks import LAYERS, RESNET50_LAYERS
from training.errors import ExportError
from training.export.explained import ExplainedNetwork
from training.export.foreground import Projection, channel_sum
from training.export.novelty import Residual
from training.graph.keras_reader import from_keras

Array = npt.NDArray[np.float64]

TARGETS, VERSUS = [-1, 0, 4, 2], [-1, 3, -1, 1]


@pytest.fixture(scope="module")
def photos() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def outputs(
    explained: ExplainedNetwork, photos: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.float32]]:
    results = explained.serve(tf.constant(photos), tf.constant(TARGETS), tf.constant(VERSUS))
    return {name: value.numpy() for name, value in results.items()}


def _keras_maps(
    model: keras.Model,
    layer: str,
    photos: npt.NDArray[np.uint8],
    targets: list[int],
    versus: list[int],
) -> tuple[Array, Array, Array]:
    """Logits, activations and their gradient, by Keras and GradientTape alone."""
    image = keras.applications.resnet50.preprocess_input(photos.astype(np.float32))
    both = keras.Model(model.input, [model.get_layer(layer).output, model.output])
    top1 = np.argmax(model(image, training=False), axis=1)
    with tf.GradientTape() as tape:
        A, logits = both(image, training=False)
        rows = []
        for row, (target, rival) in enumerate(zip(targets, versus, strict=True)):
            score = logits[row, top1[row] if target < 0 else target]
            rows.append(score - logits[row, rival] if rival >= 0 else score)
        objective = tf.add_n(rows)
    G = tape.gradient(objective, A)
    return tuple(np.asarray(array, np.float64) for array in (logits, A, G))  # type: ignore[return-value]


def _close(actual: npt.NDArray[np.float32], expected: Array, limit: float) -> None:
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= limit * np.linalg.norm(expected)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("float32", "limit"), [(True, 1e-4), (False, 1e-2)], ids=["float32", "float16"]
)
def test_maps_are_those_of_gradient_tape(
    keras_model: keras.Model,
    projections: dict[str, Projection],
    photos: npt.NDArray[np.uint8],
    layer: str,
    float32: bool,
    limit: float,
) -> None:
    network = from_keras(keras_model)
    explained = ExplainedNetwork(
        network,
        input_size=32,
        layers=LAYERS,
        projections=projections,
        float32_kernels=[node.name for node in network.nodes] if float32 else (),
    )
    actual = {
        name: value.numpy()
        for name, value in explained.serve(
            tf.constant(photos), tf.constant(TARGETS), tf.constant(VERSUS)
        ).items()
    }
    logits, A, G = _keras_maps(keras_model, layer, photos, TARGETS, VERSUS)
    total = A.sum(axis=(1, 2), keepdims=True)
    # The paper's alpha, 0 / 0 where G is zero
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = np.nan_to_num(G**2 / (2 * G**2 + total * G**3))
    plus = (alpha * np.maximum(G, 0)).sum(axis=(1, 2))
    direction, offset = projections[layer].direction, projections[layer].offset

    _close(actual["logits"], logits, limit)
    for name, expected in {
        "gradcam": np.maximum(np.einsum("nhwc,nc->nhw", A, G.mean(axis=(1, 2))), 0),
        "gradcampp": np.maximum(np.einsum("nhwc,nc->nhw", A, plus), 0),
        "layercam": (np.maximum(G, 0) * A).sum(axis=-1),
        "hirescam": (G * A).sum(axis=-1),
        "foreground": A @ direction - offset,
    }.items():
        _close(actual[f"{name}_{layer}"], expected, limit)


def test_last_layer_outputs_stand_under_their_short_names_too(
    outputs: dict[str, npt.NDArray[np.float32]],
) -> None:
    for method in ("gradcam", "gradcampp", "layercam", "hirescam", "foreground"):
        np.testing.assert_array_equal(outputs[method], outputs[f"{method}_{LAYERS[-1]}"])


def test_identities_of_a_gap_dense_head(
    keras_model: keras.Model, outputs: dict[str, npt.NDArray[np.float32]]
) -> None:
    cam, positions = outputs["cam"], outputs["cam"][0].size
    bias = keras_model.get_layer("predictions").bias.numpy()
    logits = outputs["logits"]
    rows = np.arange(4)
    score = logits[rows, outputs["target_index"]] - bias[outputs["target_index"]]
    versus = np.array(VERSUS)
    score -= np.where(versus >= 0, logits[rows, versus] - bias[versus], 0)

    np.testing.assert_allclose(cam.mean(axis=(1, 2)), score, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["gradcam"], np.maximum(cam, 0) / positions, atol=1e-6)
    np.testing.assert_allclose(outputs["hirescam"], cam / positions, atol=1e-6)
    assert (cam < 0).any()
    assert (cam > 0).any()


def test_novelty_is_the_distance_of_what_the_head_reads(
    keras_model: keras.Model,
    residual: Residual,
    photos: npt.NDArray[np.uint8],
    outputs: dict[str, npt.NDArray[np.float32]],
) -> None:
    image = keras.applications.resnet50.preprocess_input(photos.astype(np.float32))
    head = keras.Model(keras_model.input, keras_model.layers[-1].input)
    features = np.asarray(head(image, training=False), np.float64)
    off = features @ residual.directions - residual.offset

    np.testing.assert_allclose(outputs["novelty"], np.linalg.norm(off, axis=1), rtol=0.01)


def test_without_a_residual_there_is_no_novelty(
    keras_model: keras.Model, projections: dict[str, Projection]
) -> None:
    explained = ExplainedNetwork(
        from_keras(keras_model), input_size=32, layers=LAYERS, projections=projections
    )

    assert "novelty" not in explained.serve.get_concrete_function().structured_outputs


def test_targets_are_each_rows_own(outputs: dict[str, npt.NDArray[np.float32]]) -> None:
    top1 = int(np.argmax(outputs["logits"][0]))

    assert outputs["target_index"].tolist() == [top1, 0, 4, 2]


def test_probabilities_are_the_softmax_of_the_logits(
    outputs: dict[str, npt.NDArray[np.float32]],
) -> None:
    powers = np.exp(outputs["logits"].astype(np.float64))

    np.testing.assert_allclose(
        outputs["probabilities"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_signatures(small_bundle: Bundle) -> None:
    signatures = tf.saved_model.load(str(small_bundle.path)).signatures
    full = signatures["serving_default"]
    inputs = full.structured_input_signature[1]

    assert set(signatures) == {"serving_default", "predict"}
    assert {name: (spec.dtype, list(spec.shape)) for name, spec in inputs.items()} == {
        "image": (tf.uint8, [None, 32, 32, 3]),
        "class_index": (tf.int32, [None]),
        "versus_index": (tf.int32, [None]),
    }
    methods = ["gradcam", "gradcampp", "layercam", "hirescam", "foreground"]
    assert set(full.structured_outputs) == {
        "logits",
        "probabilities",
        "target_index",
        "cam",
        "novelty",
        *methods,
        *(f"{method}_{layer}" for method in methods for layer in LAYERS),
    }
    assert set(signatures["predict"].structured_outputs) == {"logits", "probabilities"}


def test_predict_signature_agrees_with_the_full_one(
    small_bundle: Bundle,
    photos: npt.NDArray[np.uint8],
    outputs: dict[str, npt.NDArray[np.float32]],
) -> None:
    predict = tf.saved_model.load(str(small_bundle.path)).signatures["predict"]
    results = predict(image=tf.constant(photos))

    np.testing.assert_allclose(results["logits"], outputs["logits"], rtol=1e-5, atol=1e-5)


def test_graph_holds_no_gradient_ops(small_bundle: Bundle) -> None:
    full = tf.saved_model.load(str(small_bundle.path)).signatures["serving_default"]
    library = full.graph.as_graph_def().library.function
    kinds = {node.op for function in library for node in function.node_def}

    assert "Conv2D" in kinds
    assert not {kind for kind in kinds if "Grad" in kind or "Backprop" in kind}


def test_kernels_are_stored_as_float16(small_bundle: Bundle) -> None:
    variables = tf.train.list_variables(str(small_bundle.path / "variables" / "variables"))
    kernels = {
        name: tf.train.load_variable(str(small_bundle.path / "variables/variables"), name).dtype
        for name, shape in variables
        if len(shape) == 4
    }

    assert len(kernels) == 13
    assert set(kernels.values()) == {np.dtype(np.float16)}


@pytest.mark.slow
def test_resnet50_is_under_50_megabytes_and_loads(resnet50: keras.Model, tmp_path: Path) -> None:
    network = from_keras(resnet50)
    layers = RESNET50_LAYERS
    channels = {name: 1024 if name.startswith("conv4") else 2048 for name in layers}
    explained = ExplainedNetwork(
        network,
        input_size=64,
        layers=layers,
        projections={name: channel_sum(count) for name, count in channels.items()},
    )
    tf.saved_model.save(explained, str(tmp_path), signatures={"serving_default": explained.serve})

    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 45e6 < size < 50e6
    assert [(layer.height, layer.width) for layer in explained.map_sizes] == [(4, 4)] * 3 + [
        (2, 2)
    ] * 3


def test_last_layer_must_be_what_the_head_pools(
    keras_model: keras.Model, projections: dict[str, Projection]
) -> None:
    with pytest.raises(ExportError, match=r"must be 'last_out', .* not 'middle_out'"):
        ExplainedNetwork(
            from_keras(keras_model), input_size=32, layers=LAYERS[:2], projections=projections
        )
