from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from tests.training.small_networks import RESNET50_LAYERS
from training.errors import WeightsError
from training.networks import resnet50 as networks
from training.networks.resnet50 import read_head


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

    model = networks.resnet50(3, str(tmp_path / "dogs.weights.h5"))

    for name in ("conv1_conv", "conv5_block3_3_conv"):
        np.testing.assert_array_equal(model.get_layer(name).kernel, backbone.get_layer(name).kernel)


@pytest.mark.parametrize("content", [None, b"not a weights file"])
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "dogs.weights.h5"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsError, match=r"dogs\.weights\.h5 holds no weights"):
        networks.resnet50(3, str(path))


def test_imagenet_out_of_reach_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An address that refuses at once stands for a machine without internet.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    with pytest.raises(WeightsError, match=r"notop\.h5 .* ~/\.keras/models, or pass --weights"):
        networks.resnet50(3, "imagenet")
    with pytest.raises(WeightsError, match=r"kernels\.h5 .* ~/\.keras/models, or pass --head FILE"):
        networks.top("imagenet")


KERNEL, BIAS = np.zeros((2048, 1000), np.float16), np.zeros(1000, np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"kernel": KERNEL}, "head.npz has no bias: "),
        ({"weights": KERNEL}, "head.npz has no kernel and no bias: "),
        (
            {"kernel": KERNEL.T, "bias": BIAS},
            r"kernel has shape \[1000, 2048\]\. .* has \[2048, 1000\]",
        ),
        ({"kernel": KERNEL, "bias": BIAS[:120]}, r"bias has shape \[120\]\. .* has \[1000\]"),
        ({"kernel": KERNEL, "bias": BIAS + np.nan}, "bias has values that are not finite floats"),
        ({"kernel": KERNEL.astype(np.int8), "bias": BIAS}, "kernel has values"),
        ({"kernel": KERNEL.astype(object), "bias": BIAS}, "not an .npz file of arrays"),
    ],
)
def test_head_that_is_none(
    arrays: dict[str, npt.NDArray[Any]], message: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = dict(arrays)
    np.savez(tmp_path / "head.npz", **options)

    with pytest.raises(WeightsError, match=message) as caught:
        read_head(tmp_path / "head.npz")

    assert "\n" not in str(caught.value)


def test_head_in_another_format(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", BIAS)
    (tmp_path / "text.npz").write_text("kernel, bias")
    (tmp_path / "empty.npz").touch()

    for name in ("array.npy", "text.npz", "empty.npz"):
        with pytest.raises(WeightsError, match=rf"{name} is not an \.npz file of arrays"):
            read_head(tmp_path / name)


def test_head_of_half_floats_is_float32(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, KERNEL.shape).astype(np.float16)
    bias = rng.normal(0, 1, BIAS.shape)
    np.savez(tmp_path / "head.npz", kernel=kernel, bias=bias)

    actual = read_head(tmp_path / "head.npz")

    assert [array.dtype for array in actual] == [np.float32, np.float32]
    np.testing.assert_array_equal(actual[0], kernel.astype(np.float32))
    np.testing.assert_allclose(actual[1], bias, rtol=1e-6)
