from pathlib import Path

import keras
import numpy as np
import pytest

from app.bundle import Architecture
from tests.training.small_networks import RESNET50_LAYERS
from training.errors import WeightsError
from training.networks import architectures
from training.networks.architectures import build, custom_cnn, imagenet_head
from training.networks.preprocessing import Preprocessing


def test_resnet50_ends_in_pooling_and_logits(resnet50: keras.Model) -> None:
    activated = resnet50.get_layer(RESNET50_LAYERS[-1]).output
    last = keras.Model(resnet50.input, [activated, resnet50.output])
    photos = np.random.default_rng(0).normal(0, 50, (2, 64, 64, 3)).astype(np.float32)

    activations, logits = (np.asarray(output) for output in last(photos, training=False))

    kernel, bias = resnet50.get_layer("predictions").get_weights()
    expected = activations.mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected) > 0
    sizes = [resnet50.get_layer(name).output.shape[1:] for name in RESNET50_LAYERS]
    assert sizes == [(4, 4, 1024)] * 3 + [(2, 2, 2048)] * 3


def test_weights_file_without_the_top_is_loaded(tmp_path: Path) -> None:
    backbone = keras.applications.ResNet50(
        weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    backbone.save_weights(tmp_path / "dogs.weights.h5")

    model = architectures.resnet50(3, str(tmp_path / "dogs.weights.h5"))

    for name in ("conv1_conv", "conv5_block3_3_conv"):
        np.testing.assert_array_equal(model.get_layer(name).kernel, backbone.get_layer(name).kernel)


@pytest.mark.parametrize("content", [None, b"not a weights file"])
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "dogs.weights.h5"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsError, match=r"dogs\.weights\.h5 holds no weights"):
        architectures.resnet50(3, str(path))


def test_imagenet_out_of_reach_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An address that refuses at once stands for a machine without internet.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    with pytest.raises(WeightsError, match=r"notop\.h5 .* ~/\.keras/models, or pass --weights"):
        architectures.resnet50(3, "imagenet")
    with pytest.raises(WeightsError, match=r"kernels\.h5 .* ~/\.keras/models, or pass --head FILE"):
        imagenet_head("imagenet")


@pytest.mark.parametrize("architecture", [Architecture.RESNET50, Architecture.CUSTOM_CNN])
def test_architectures_are_built_by_name(architecture: Architecture, resnet50: keras.Model) -> None:
    model = build(architecture, 3, input_size=32)
    plain = architecture is Architecture.CUSTOM_CNN
    direct = custom_cnn(3, input_size=32) if plain else resnet50  # for another size

    assert model.name == architecture
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 3))
    assert [(layer.name, type(layer)) for layer in model.layers[1:]] == [
        (layer.name, type(layer)) for layer in direct.layers[1:]
    ]


def test_architecture_that_is_not_built_here() -> None:
    with pytest.raises(ValueError, match="keras"):
        build(Architecture.KERAS, 3, input_size=32)
    with pytest.raises(ValueError, match="custom_cnn at None px"):
        build(Architecture.CUSTOM_CNN, 3)


def test_custom_cnn_has_no_global_pooling_and_fits_the_bound() -> None:
    model = custom_cnn(10, input_size=224)
    kinds = {type(layer).__name__ for layer in model.layers}

    assert {"Rescaling", "MaxPooling2D", "Flatten", "Dropout"} < kinds
    assert not {kind for kind in kinds if kind.startswith("Global")}
    assert 8e6 < model.count_params() < 9e6


@pytest.mark.parametrize("weights", ["imagenet", "dogs.weights.h5"])
def test_custom_cnn_has_no_first_weights(weights: str) -> None:
    with pytest.raises(WeightsError, match="--weights none"):
        build(Architecture.CUSTOM_CNN, 3, weights, 32)


def test_preprocessing_is_a_property_of_the_architecture() -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)

    assert architectures.preprocessing(Architecture.CUSTOM_CNN) is Preprocessing.NONE
    assert architectures.preprocessing(Architecture.RESNET50) is Preprocessing.CAFFE
    np.testing.assert_array_equal(Preprocessing.NONE.apply(photos), photos)
    np.testing.assert_allclose(
        Preprocessing.CAFFE.apply(photos),
        keras.applications.resnet50.preprocess_input(photos.astype(np.float32)),
        rtol=1e-5,
        atol=1e-4,
    )
