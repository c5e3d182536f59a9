"""A Keras classifier read as a `Network`: nested models flattened, batch norm folded away."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training import keras_arithmetic
from training.errors import ExportError
from training.network import Network, Node, Operation, fold_batch_norm, fold_zero_padding

__all__ = ["from_keras"]

Array = npt.NDArray[np.floating[Any]]
Names = tuple[str, ...]

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
"""Keras's functions with their default arguments."""

_IDENTITIES = tuple(
    getattr(keras.layers, name)
    for name in (
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "RandomBrightness",
        "RandomContrast",
        "RandomFlip",
        "RandomRotation",
        "RandomTranslation",
        "RandomZoom",
        "SpatialDropout2D",
    )
)
"""Layers that do nothing once trained."""


def from_keras(model: keras.Model) -> Network:
    """Read a functional or sequential Keras classifier.

    Models inside the model are flattened, layers that do nothing at inference are left out, each
    batch norm that follows a convolution is folded into it, and a final softmax is left off: the
    network ends in logits.

    Raises:
        ExportError: a layer that is not supported, by its name; several inputs or outputs; or an
            end that is no Dense layer.
    """
    reader = _Reader()
    graph = _graph(model)
    input_name = reader.name(graph.inputs[0].name)
    output = reader.read(graph, input_name)
    nodes = {node.name: node for node in reader.nodes}
    while output in nodes and nodes[output].operation.kind == "softmax":
        (output,) = nodes.pop(output).inputs
    if output not in nodes or nodes[output].operation.kind != "dense":
        raise ExportError("The network must end in a Dense layer, with or without softmax.")
    for node in nodes.values():
        if node.operation.kind == "softmax":
            raise ExportError(
                f"Layer {node.name!r} (softmax) is supported at the end of the network only."
            )
    return Network(input_name, fold_zero_padding(fold_batch_norm(nodes.values())))


def _graph(model: Any) -> Any:
    """The functional model behind a model.

    Raises:
        ExportError: there is none, or it has several inputs or outputs.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional or model
    if not hasattr(model, "_nodes_by_depth"):
        raise ExportError(
            f"Model {model.name!r} ({type(model).__name__}) is neither functional nor a "
            "sequential one with a known input."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExportError(
            f"Only networks of one input and one output can be exported; {model.name!r} has "
            f"{len(model.inputs)} and {len(model.outputs)}."
        )
    return model


class _Reader:
    """Collects nodes; every one gets a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._names: set[str] = set()

    def name(self, wanted: str) -> str:
        """That name, fit for a signature's output, with a number where it is taken."""
        name = base = re.sub(r"[^A-Za-z0-9_.\-/]", "_", wanted)
        count = 1
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def read(self, graph: Any, input_name: str) -> str:
        """Append a graph's nodes; returns the name of its output."""
        names: dict[int, str] = {id(graph.inputs[0]): input_name}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for keras_node in graph._nodes_by_depth[depth]:
                layer = keras_node.operation
                if isinstance(layer, keras.layers.InputLayer):
                    continue
                inputs = tuple(names[id(tensor)] for tensor in keras_node.input_tensors)
                shapes = [tuple(tensor.shape) for tensor in keras_node.input_tensors]
                arithmetic = keras_arithmetic.read(keras_node)
                names[id(keras_node.outputs[0])] = (
                    self._append_parts(layer, inputs, [arithmetic])
                    if arithmetic
                    else self._append(layer, inputs, shapes)
                )
        return names[id(graph.outputs[0])]

    def _append(self, layer: Any, inputs: Names, shapes: Sequence[tuple[int | None, ...]]) -> str:
        if isinstance(layer, keras.Model):
            return self.read(_graph(layer), inputs[0])
        if isinstance(layer, _IDENTITIES):
            return inputs[0]
        parts = _parts(layer, shapes)
        return self._append_parts(layer, inputs, parts) if parts else inputs[0]

    def _append_parts(self, layer: Any, inputs: Names, parts: Sequence["Part"]) -> str:
        name = self.name(layer.name)
        for operation, weights in parts[:-1]:
            before = self.name(f"{name}/{operation.kind}")
            self.nodes.append(Node(before, operation, inputs, weights))
            inputs = (before,)
        operation, weights = parts[-1]
        self.nodes.append(Node(name, operation, inputs, weights))
        return name


Part = tuple[Operation, Mapping[str, Array]]


def _parts(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> list[Part]:
    """A layer as operations, one after the other; the last one bears its name."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _unsupported(layer, "with channels first")
    translate = _TRANSLATIONS.get(type(layer))
    if translate is None:
        raise _unsupported(layer)
    return translate(layer, shapes)


def _unsupported(layer: Any, detail: str = "") -> ExportError:
    kind = f"{type(layer).__name__} {detail}".strip()
    return ExportError(f"Layer {layer.name!r} ({kind}) is not supported.")


def _activated(layer: Any, part: Part) -> list[Part]:
    """The operation, followed by the layer's own activation."""
    return [part, *_activation(layer)]


def _activation(layer: Any, _shapes: Any = None) -> list[Part]:
    function = layer.activation
    if isinstance(function, keras.layers.Layer):
        return _parts(function, [])
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
    first = _dilated(layer, layer.depthwise_kernel)
    second = np.asarray(layer.pointwise_kernel, np.float32)
    none = np.zeros(first.shape[2] * first.shape[3], np.float32)
    pointwise: Part = (
        Operation("convolution"),
        {"kernel": second, "bias": _bias(layer, second)},
    )
    depthwise: Part = (_depthwise_operation(layer), {"kernel": first, "bias": none})
    return [depthwise, *_activated(layer, pointwise)]


def _depthwise_operation(layer: Any) -> Operation:
    return Operation("depthwise_convolution", strides=tuple(layer.strides), padding=layer.padding)


def _dilated(layer: Any, variable: Any) -> Array:
    """A kernel with its dilation's zeros put between: then it is an ordinary one."""
    if layer.padding not in ("same", "valid"):
        raise _unsupported(layer, f"with {layer.padding} padding")
    kernel = np.asarray(variable, np.float32)
    down, across = layer.dilation_rate
    height, width = kernel.shape[:2]
    wide = np.zeros(
        ((height - 1) * down + 1, (width - 1) * across + 1, *kernel.shape[2:]), np.float32
    )
    wide[::down, ::across] = kernel
    return wide


def _bias(layer: Any, kernel: Array, axes: int = 1) -> Array:
    """The bias, or zeros, one for each of the kernel's output channels."""
    if layer.use_bias:
        return np.asarray(layer.bias, np.float32)
    return np.zeros(int(np.prod(kernel.shape[-axes:])), np.float32)


def _dense(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> list[Part]:
    if len(shapes[0]) != 2:
        raise _unsupported(layer, "on more than one axis: put a Flatten before it")
    kernel = np.asarray(layer.kernel, np.float32)
    return _activated(layer, (Operation("dense"), {"kernel": kernel, "bias": _bias(layer, kernel)}))


def _batch_norm(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> list[Part]:
    """Batch norm at inference is `scale * x + offset`."""
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


def _softmax(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> list[Part]:
    if layer.axis not in (-1, [-1]):
        raise _unsupported(layer, f"on axis {layer.axis}")
    return [(Operation("softmax"), {})]


def _merge(kind: str) -> "Translation":
    def translate(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> list[Part]:
        if len({len(shape) for shape in shapes}) != 1:
            raise _unsupported(layer, "of different ranks")
        return [(Operation(kind), {})]

    return translate


def _concatenate(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> list[Part]:
    if layer.axis not in (-1, len(shapes[0]) - 1):
        raise _unsupported(layer, f"on axis {layer.axis}")
    return [(Operation("concatenate"), {})]


def _margins(kind: str) -> "Translation":
    def translate(layer: Any, _shapes: Any) -> list[Part]:
        margins = layer.padding if kind == "zero_padding" else layer.cropping
        (top, bottom), (left, right) = margins
        return [(Operation(kind, margins=((top, bottom), (left, right))), {})]

    return translate


def _pooling(kind: str) -> "Translation":
    def translate(layer: Any, _shapes: Any) -> list[Part]:
        operation = Operation(
            kind,
            strides=tuple(layer.strides),
            padding=layer.padding,
            window=tuple(layer.pool_size),
        )
        return [(operation, {})]

    return translate


def _global_pooling(kind: str) -> "Translation":
    def translate(layer: Any, _shapes: Any) -> list[Part]:
        kept: list[Part] = [(Operation("reshape", shape=(1, 1, -1)), {})] if layer.keepdims else []
        return [(Operation(kind), {}), *kept]

    return translate


def _flatten(_layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("reshape", shape=(-1,)), {})]


def _reshape(layer: Any, _shapes: Any) -> list[Part]:
    return [(Operation("reshape", shape=tuple(layer.target_shape)), {})]


Translation = Callable[[Any, Sequence[tuple[int | None, ...]]], list[Part]]

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
}
"""By the layer's own class: a subclass may compute something else."""
