"""Keras layers as operations: one translation for each layer type.

A translation takes the layer and the shapes of its inputs, and returns the operations that the
layer stands for, with their weights: a convolution with a ReLU, for instance, is two.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.errors import ExportError
from training.graph.network import Operation

__all__ = ["Part", "Shape", "is_identity", "translate"]

Array = npt.NDArray[np.floating[Any]]

Part = tuple[Operation, Mapping[str, Array]]
"""An operation and its weights; see `network.Node` for their shapes."""

Shape = tuple[int | None, ...]
"""A tensor's shape, the batch axis included."""

Translation = Callable[[Any, Sequence[Shape]], list[Part]]

_ACTIVATIONS = {
    "relu": Operation("relu"),
    "relu6": Operation("general_relu", ceiling=6.0),
    "leaky_relu": Operation("general_relu", slope=0.2),
    "elu": Operation("elu", slope=1.0),
    "sigmoid": Operation("sigmoid"),
    "tanh": Operation("tanh"),
    "silu": Operation("silu"),
    "hard_sigmoid": Operation("hard_sigmoid"),
    "hard_silu": Operation("hard_silu"),
    "gelu": Operation("gelu"),
    "softmax": Operation("softmax"),
}
"""Keras's activation functions with their default arguments."""

_IDENTITIES = tuple(
    getattr(keras.layers, name)
    for name in (
        "ActivityRegularization",
        "AlphaDropout",
        "AugMix",
        "CutMix",
        "Dropout",
        "Equalization",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "Solarization",
        "SpatialDropout2D",
    )
    if hasattr(keras.layers, name)  # later versions of Keras have more of them
)
"""Layers that do nothing at inference: `layer(x, training=False)` is x."""


def is_identity(layer: Any) -> bool:
    """Whether the layer, or each layer of a pipeline, does nothing at inference."""
    if isinstance(layer, keras.layers.Pipeline):
        return all(map(is_identity, layer.layers))
    return isinstance(layer, _IDENTITIES)


def translate(layer: Any, shapes: Sequence[Shape]) -> list[Part]:
    """A layer as operations that run one after the other; none for a linear activation.

    Args:
        layer: any Keras layer.
        shapes: of its inputs.

    Raises:
        ExportError: the layer, or one of its options, is not supported.
    """
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _unsupported(layer, "with channels first")
    translation = _TRANSLATIONS.get(type(layer))
    if translation is None:
        raise _unsupported(layer)
    return translation(layer, shapes)


def _same_size(layer: Any, shapes: Sequence[Shape]) -> list[Part]:
    """A layer that resizes or crops to a size: nothing, where its input has that size."""
    height, width = int(layer.height), int(layer.width)
    if tuple(shapes[0][1:3]) != (height, width):
        raise _unsupported(
            layer,
            f"to {height} x {width}, where its input is not fixed to that size: the service "
            "resizes photos itself",
        )
    return []


def _unsupported(layer: Any, detail: str = "") -> ExportError:
    kind = f"{type(layer).__name__} {detail}".strip()
    return ExportError(f"Layer {layer.name!r} ({kind}) is not supported.")


def _activated(layer: Any, part: Part) -> list[Part]:
    """The operation, followed by the layer's activation."""
    return [part, *_activation(layer)]


def _activation(layer: Any, _shapes: Any = None) -> list[Part]:
    function = layer.activation
    if isinstance(function, keras.layers.Layer):
        return translate(function, [])
    name = getattr(function, "__name__", type(function).__name__)
    if name == "linear":
        return []
    if name not in _ACTIVATIONS:
        raise _unsupported(layer, f"with activation {name}")
    return [(_ACTIVATIONS[name], {})]


def _convolution(layer: Any, _shapes: Any) -> list[Part]:
    if layer.groups != 1:
        raise _unsupported(layer, "with groups")
    operation = Operation("convolution", strides=tuple(layer.strides), padding=layer.padding)
    kernel = _dilated(layer, layer.kernel)
    return _activated(layer, (operation, {"kernel": kernel, "bias": _bias(layer, kernel)}))


def _depthwise(layer: Any, _shapes: Any) -> list[Part]:
    operation, kernel = _depthwise_operation(layer), _dilated(layer, layer.kernel)
    return _activated(layer, (operation, {"kernel": kernel, "bias": _bias(layer, kernel, 2)}))


def _separable(layer: Any, _shapes: Any) -> list[Part]:
    """A depthwise convolution without bias, then a 1x1 convolution with the layer's bias."""
    depthwise_kernel = _dilated(layer, layer.depthwise_kernel)  # [kh, kw, C, M]
    pointwise_kernel = np.asarray(layer.pointwise_kernel, np.float32)  # [1, 1, C * M, Cout]
    zeros = np.zeros(pointwise_kernel.shape[2], np.float32)
    depthwise: Part = (_depthwise_operation(layer), {"kernel": depthwise_kernel, "bias": zeros})
    pointwise: Part = (
        Operation("convolution"),
        {"kernel": pointwise_kernel, "bias": _bias(layer, pointwise_kernel)},
    )
    return [depthwise, *_activated(layer, pointwise)]


def _depthwise_operation(layer: Any) -> Operation:
    return Operation("depthwise_convolution", strides=tuple(layer.strides), padding=layer.padding)


def _dilated(layer: Any, variable: Any) -> Array:
    """A dilated kernel as an ordinary one, with zeros between its taps.

    Dilated by 2, the taps `a b c` become `a 0 b 0 c`: n taps take (n - 1) * rate + 1 places.

    Args:
        layer: a convolution.
        variable: its kernel, `[kh, kw, ...]`.
    """
    if layer.padding not in ("same", "valid"):
        raise _unsupported(layer, f"with {layer.padding} padding")
    kernel = np.asarray(variable, np.float32)
    down, across = layer.dilation_rate
    height, width = kernel.shape[:2]
    dilated = np.zeros(
        ((height - 1) * down + 1, (width - 1) * across + 1, *kernel.shape[2:]), np.float32
    )
    dilated[::down, ::across] = kernel
    return dilated


def _bias(layer: Any, kernel: Array, axes: int = 1) -> Array:
    """The layer's bias, or zeros: one value for each output channel.

    Args:
        layer: a convolution or Dense layer.
        kernel: its kernel.
        axes: how many of the kernel's last axes make up the output channels.
    """
    if layer.use_bias:
        return np.asarray(layer.bias, np.float32)
    return np.zeros(int(np.prod(kernel.shape[-axes:])), np.float32)


def _dense(layer: Any, shapes: Sequence[Shape]) -> list[Part]:
    if len(shapes[0]) != 2:
        raise _unsupported(layer, "on more than one axis: put a Flatten before it")
    kernel = np.asarray(layer.kernel, np.float32)
    return _activated(layer, (Operation("dense"), {"kernel": kernel, "bias": _bias(layer, kernel)}))


def _batch_norm(layer: Any, shapes: Sequence[Shape]) -> list[Part]:
    """Batch norm at inference, `gamma (x - mean) / sqrt(variance + epsilon) + beta`.

    As `scale * x + offset`, each `[C]`, that is:

        scale = gamma / sqrt(variance + epsilon)
        offset = beta - mean * scale
    """
    if layer.axis not in (-1, len(shapes[0]) - 1):
        raise _unsupported(layer, f"on axis {layer.axis}")
    mean = np.asarray(layer.moving_mean, np.float64)
    scale = 1.0 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
    if layer.scale:
        scale *= np.asarray(layer.gamma, np.float64)
    offset = -mean * scale
    if layer.center:
        offset += np.asarray(layer.beta, np.float64)
    return [(Operation("batch_norm"), {"scale": scale, "offset": offset})]


def _rescaling(layer: Any, _shapes: Any) -> list[Part]:
    weights = {
        "scale": np.asarray(layer.scale, np.float64),
        "offset": np.asarray(layer.offset, np.float64),
    }
    return [(Operation("rescaling"), weights)]


def _normalization(layer: Any, _shapes: Any) -> list[Part]:
    """`(x - mean) / max(deviation, epsilon)`, as `scale * x + offset`."""
    if layer.invert:
        raise _unsupported(layer, "inverted")
    deviation = np.sqrt(np.asarray(layer.variance, np.float64))
    scale = 1.0 / np.maximum(deviation, keras.config.epsilon())
    weights = {"scale": scale, "offset": -np.asarray(layer.mean, np.float64) * scale}
    return [(Operation("rescaling"), weights)]


def _relu(layer: Any, _shapes: Any) -> list[Part]:
    slope, threshold = float(layer.negative_slope), float(layer.threshold)
    if not slope and not threshold and layer.max_value is None:
        return [(Operation("relu"), {})]
    operation = Operation("general_relu", slope=slope, threshold=threshold, ceiling=layer.max_value)
    return [(operation, {})]


def _leaky_relu(layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("general_relu", slope=float(layer.negative_slope)), {})]


def _prelu(layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("prelu"), {"alpha": np.asarray(layer.alpha, np.float32)})]


def _elu(layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("elu", slope=float(layer.alpha)), {})]


def _softmax(layer: Any, _shapes: Any) -> list[Part]:
    if layer.axis not in (-1, [-1]):
        raise _unsupported(layer, f"on axis {layer.axis}")
    return [(Operation("softmax"), {})]


def _merge(kind: str) -> Translation:
    def translation(layer: Any, shapes: Sequence[Shape]) -> list[Part]:
        if len({len(shape) for shape in shapes}) != 1:
            raise _unsupported(layer, "of different ranks")
        return [(Operation(kind), {})]

    return translation


def _concatenate(layer: Any, shapes: Sequence[Shape]) -> list[Part]:
    if layer.axis not in (-1, len(shapes[0]) - 1):
        raise _unsupported(layer, f"on axis {layer.axis}")
    return [(Operation("concatenate"), {})]


def _margins(kind: str) -> Translation:
    def translation(layer: Any, _shapes: Any) -> list[Part]:
        margins = layer.padding if kind == "zero_padding" else layer.cropping
        (top, bottom), (left, right) = margins
        return [(Operation(kind, margins=((top, bottom), (left, right))), {})]

    return translation


def _pooling(kind: str) -> Translation:
    def translation(layer: Any, _shapes: Any) -> list[Part]:
        operation = Operation(
            kind,
            strides=tuple(layer.strides),
            padding=layer.padding,
            window=tuple(layer.pool_size),
        )
        return [(operation, {})]

    return translation


def _global_pooling(kind: str) -> Translation:
    def translation(layer: Any, _shapes: Any) -> list[Part]:
        parts: list[Part] = [(Operation(kind), {})]  # [N, h, w, C] to [N, C]
        if layer.keepdims:
            parts.append((Operation("reshape", shape=(1, 1, -1)), {}))
        return parts

    return translation


def _flatten(_layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("reshape", shape=(-1,)), {})]


def _reshape(layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("reshape", shape=tuple(layer.target_shape)), {})]


_TRANSLATIONS: dict[type, Translation] = {
    keras.layers.Conv2D: _convolution,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.Dense: _dense,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Normalization: _normalization,
    keras.layers.Activation: _activation,
    keras.layers.ReLU: _relu,
    keras.layers.LeakyReLU: _leaky_relu,
    keras.layers.PReLU: _prelu,
    keras.layers.ELU: _elu,
    keras.layers.Softmax: _softmax,
    keras.layers.Add: _merge("add"),
    keras.layers.Multiply: _merge("multiply"),
    keras.layers.Concatenate: _concatenate,
    keras.layers.ZeroPadding2D: _margins("zero_padding"),
    keras.layers.Cropping2D: _margins("cropping"),
    keras.layers.MaxPooling2D: _pooling("max_pooling"),
    keras.layers.AveragePooling2D: _pooling("average_pooling"),
    keras.layers.GlobalAveragePooling2D: _global_pooling("global_average_pooling"),
    keras.layers.GlobalMaxPooling2D: _global_pooling("global_max_pooling"),
    keras.layers.Flatten: _flatten,
    keras.layers.Reshape: _reshape,
    keras.layers.CenterCrop: _same_size,
    keras.layers.RandomCrop: _same_size,
    keras.layers.Resizing: _same_size,
}
"""By the layer's exact class: a subclass may compute something else."""
