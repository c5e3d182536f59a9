from pathlib import Path

import keras
import numpy as np
import pytest

from training.architectures import RESNET50_LAYERS, resnet50
from training.errors import WeightsError


def test_resnet50_ends_in_pooling_and_logits() -> None:
    model = resnet50(7, input_size=64)

    assert model.output.shape == (None, 7)
    assert [type(layer).__name__ for layer in model.layers[-2:]] == [
        "GlobalAveragePooling2D",
        "Dense",
    ]
    assert model.layers[-3].name == RESNET50_LAYERS[-1]
    sizes = [model.get_layer(name).output.shape[1:] for name in RESNET50_LAYERS]
    assert sizes == [(4, 4, 1024)] * 3 + [(2, 2, 2048)] * 3


def test_weights_file_without_the_top_is_loaded(tmp_path: Path) -> None:
    backbone = keras.applications.ResNet50(
        weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    backbone.save_weights(tmp_path / "dogs.weights.h5")

    model = resnet50(3, str(tmp_path / "dogs.weights.h5"))

    for name in ("conv1_conv", "conv5_block3_3_conv"):
        np.testing.assert_array_equal(model.get_layer(name).kernel, backbone.get_layer(name).kernel)


@pytest.mark.parametrize("content", [None, b"not a weights file"])
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "dogs.weights.h5"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsError, match=r"dogs\.weights\.h5 holds no weights"):
        resnet50(3, str(path))


def test_imagenet_out_of_reach_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An address that refuses at once stands for a machine without internet.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    with pytest.raises(WeightsError, match=r"notop\.h5 .* ~/\.keras/models, or pass --weights"):
        resnet50(3, "imagenet")
