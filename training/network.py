"""A Keras classifier as a list of plain operations, with batch norm folded away.

This is what is exported: `gradients` knows how to run each operation forwards and backwards with
inference ops alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.errors import ExportError

__all__ = ["Network", "Node", "Operation", "from_keras"]

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Operation:
    """One operation, without its weights.

    Attributes:
        kind: `convolution`, `batch_norm`, `relu`, `add`, `zero_padding`, `max_pooling`,
            `global_average_pooling`, `dense` or `identity`.
        strides: of a convolution or pooling.
        padding: `same` or `valid`, of a convolution or pooling.
        window: of a pooling.
        margins: of a zero padding, ((top, bottom), (left, right)).
    """

    kind: str
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    window: tuple[int, int] = (1, 1)
    margins: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Node:
    """An operation in its place: its name is the Keras layer's, its inputs are nodes' names."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    weights: Mapping[str, Array]


@dataclass(frozen=True)
class Network:
    """Nodes in the order they run.

    Attributes:
        input: the name under which the first nodes ask for the preprocessed image.
        nodes: the last one gives the logits.
    """

    input: str
    nodes: tuple[Node, ...]

    @property
    def classes(self) -> int:
        """Units of the last Dense layer."""
        return int(self.nodes[-1].weights["kernel"].shape[1])

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            ExportError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise ExportError(f"The network has no layer {name!r}.")

    @property
    def gap_dense(self) -> bool:
        """Whether the head is global average pooling and one Dense layer, as CAM needs."""
        kinds = [node.operation.kind for node in self.nodes if node.operation.kind != "identity"]
        return kinds[-2:] == ["global_average_pooling", "dense"]


def from_keras(model: keras.Model) -> Network:
    """Read a functional Keras classifier and fold each batch norm that follows a convolution.

    A final softmax is left off: the network ends in logits.

    Raises:
        ExportError: a layer that is not supported, by its name; several inputs or outputs; or an
            end that is no Dense layer.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExportError("Only networks of one input and one output can be exported.")
    names: dict[int, str] = {id(model.inputs[0]): model.inputs[0].name}
    nodes: list[Node] = []
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for keras_node in model._nodes_by_depth[depth]:
            layer = keras_node.operation
            if isinstance(layer, keras.layers.InputLayer):
                names[id(keras_node.outputs[0])] = layer.name
                input_name = layer.name
                continue
            inputs = tuple(names[id(tensor)] for tensor in keras_node.input_tensors)
            nodes.extend(_translate(layer, inputs))
            names[id(keras_node.outputs[0])] = layer.name
    if nodes and nodes[-1].operation.kind == "softmax":
        nodes.pop()
    if not nodes or nodes[-1].operation.kind != "dense":
        raise ExportError("The network must end in a Dense layer, with or without softmax.")
    if any(node.operation.kind == "softmax" for node in nodes):
        raise ExportError("A softmax is supported at the end of the network only.")
    return Network(input_name, _fold_batch_norm(nodes))


def _translate(layer: Any, inputs: tuple[str, ...]) -> list[Node]:
    """One layer as one node, or two where it has an activation of its own."""
    layers = keras.layers
    name: str = layer.name
    match layer:
        case layers.DepthwiseConv2D() | layers.Conv2DTranspose() | layers.SeparableConv2D():
            raise _unsupported(layer)
        case layers.Conv2D():
            if layer.groups != 1 or layer.dilation_rate != (1, 1):
                raise _unsupported(layer, "with groups or dilation")
            operation = Operation("convolution", strides=layer.strides, padding=layer.padding)
            return _activated(layer, operation, inputs, _kernel_and_bias(layer))
        case layers.Dense():
            return _activated(layer, Operation("dense"), inputs, _kernel_and_bias(layer))
        case layers.BatchNormalization():
            return [Node(name, Operation("batch_norm"), inputs, _scale_and_offset(layer))]
        case layers.Activation():
            kind = _activation(layer)
            return [Node(name, Operation(kind), inputs, {})]
        case layers.ReLU() if not layer.negative_slope and not layer.threshold:
            if layer.max_value is not None:
                raise _unsupported(layer, "with a maximum")
            return [Node(name, Operation("relu"), inputs, {})]
        case layers.Add():
            return [Node(name, Operation("add"), inputs, {})]
        case layers.ZeroPadding2D():
            return [Node(name, Operation("zero_padding", margins=layer.padding), inputs, {})]
        case layers.MaxPooling2D():
            operation = Operation(
                "max_pooling",
                strides=layer.strides,
                padding=layer.padding,
                window=layer.pool_size,
            )
            return [Node(name, operation, inputs, {})]
        case layers.GlobalAveragePooling2D() if not layer.keepdims:
            return [Node(name, Operation("global_average_pooling"), inputs, {})]
        case layers.Dropout():
            return [Node(name, Operation("identity"), inputs, {})]
    raise _unsupported(layer)


def _activated(
    layer: Any, operation: Operation, inputs: tuple[str, ...], weights: dict[str, Array]
) -> list[Node]:
    """The node, followed by the layer's own activation, which then carries the layer's name."""
    kind = _activation(layer)
    if kind == "identity":
        return [Node(layer.name, operation, inputs, weights)]
    before = f"{layer.name}/linear"
    return [
        Node(before, operation, inputs, weights),
        Node(layer.name, Operation(kind), (before,), {}),
    ]


def _activation(layer: Any) -> str:
    kinds = {"linear": "identity", "relu": "relu", "softmax": "softmax"}
    name = layer.activation.__name__
    if name not in kinds:
        raise _unsupported(layer, f"with activation {name}")
    return kinds[name]


def _unsupported(layer: Any, detail: str = "") -> ExportError:
    kind = f"{type(layer).__name__} {detail}".strip()
    return ExportError(f"Layer {layer.name!r} ({kind}) is not supported.")


def _kernel_and_bias(layer: Any) -> dict[str, Array]:
    kernel = np.asarray(layer.kernel, np.float32)
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1])
    return {"kernel": kernel, "bias": bias.astype(np.float32)}


def _scale_and_offset(layer: Any) -> dict[str, Array]:
    """Batch norm at inference is `scale * x + offset`."""
    mean = np.asarray(layer.moving_mean, np.float64)
    variance = np.asarray(layer.moving_variance, np.float64)
    scale = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= np.asarray(layer.gamma, np.float64)
    offset = -mean * scale
    if layer.center:
        offset += np.asarray(layer.beta, np.float64)
    return {"scale": scale, "offset": offset}


def _fold_batch_norm(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Merge each batch norm into the convolution before it, if nothing else reads that one."""
    folded = list(nodes)
    for norm in [node for node in folded if node.operation.kind == "batch_norm"]:
        source = next((node for node in folded if node.name == norm.inputs[0]), None)
        readers = [node for node in folded if norm.inputs[0] in node.inputs]
        if source is None or source.operation.kind != "convolution" or readers != [norm]:
            continue
        scale, offset = norm.weights["scale"], norm.weights["offset"]
        weights = {
            "kernel": (source.weights["kernel"] * scale).astype(np.float32),
            "bias": (source.weights["bias"] * scale + offset).astype(np.float32),
        }
        folded[folded.index(norm)] = replace(source, name=norm.name, weights=weights)
        folded.remove(source)
    return tuple(folded)
