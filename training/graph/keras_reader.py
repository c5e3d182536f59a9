"""A Keras classifier read as a `Network`: nested models flattened, batch norm folded away."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from training.errors import ExportError
from training.graph import keras_arithmetic
from training.graph.folding import fold_batch_norm, fold_zero_padding
from training.graph.keras_layers import Part, Shape, is_identity, translate
from training.graph.network import Network, Node

__all__ = ["from_keras"]


def from_keras(model: keras.Model) -> Network:
    """Read a functional or sequential Keras classifier.

    Models inside the model are flattened, layers that do nothing at inference are left out, each
    batch norm that follows a convolution is folded into it, and a final softmax is left off: the
    network ends in logits.

    Raises:
        ExportError: a layer is not supported (the message names it), the model has several inputs
            or outputs, or it does not end in a Dense layer.
    """
    reader = _Reader()
    graph = _graph(model)
    input_name = reader.unique_name(graph.inputs[0].name)
    output = reader.read(graph, input_name)
    nodes = {node.name: node for node in reader.nodes}
    while output in nodes and nodes[output].operation.kind == "softmax":
        (output,) = nodes.pop(output).inputs
    if output not in nodes or nodes[output].operation.kind != "dense":
        raise ExportError("The network must end in a Dense layer, with or without softmax.")
    for node in nodes.values():
        if node.operation.kind == "softmax":
            raise ExportError(
                f"Layer {node.name!r} (softmax) is supported only at the end of the network."
            )
    return Network(input_name, fold_zero_padding(fold_batch_norm(nodes.values())))


def _graph(model: Any) -> Any:
    """The functional model behind a model.

    Raises:
        ExportError: it has none, or several inputs or outputs.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional or model
    if not hasattr(model, "_nodes_by_depth"):
        raise ExportError(
            f"Model {model.name!r} ({type(model).__name__}) is neither a functional model nor a "
            "Sequential model with a known input shape."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExportError(
            "Only models with one input and one output can be exported. "
            f"{model.name!r} has {len(model.inputs)} and {len(model.outputs)}."
        )
    return model


class _Reader:
    """Collects nodes and gives each a unique name."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._names: set[str] = set()

    def unique_name(self, name: str) -> str:
        """The name as a signature's output may bear it, with a number if it is taken already."""
        unique = base = re.sub(r"[^A-Za-z0-9_.\-/]", "_", name)
        count = 1
        while unique in self._names:
            count += 1
            unique = f"{base}_{count}"
        self._names.add(unique)
        return unique

    def read(self, graph: Any, input_name: str) -> str:
        """Append a graph's nodes.

        Returns:
            The name of the graph's output.
        """
        # Keras counts depth from the output (0), so the greatest comes first. A tensor is known by
        # its identity: a layer that is used twice has one name, but two outputs.
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

    def _append(self, layer: Any, inputs: tuple[str, ...], shapes: Sequence[Shape]) -> str:
        """Append a layer's nodes; returns the name of its output."""
        if isinstance(layer, keras.Model):
            return self.read(_graph(layer), inputs[0])
        if is_identity(layer):
            return inputs[0]
        parts = translate(layer, shapes)
        return self._append_parts(layer, inputs, parts) if parts else inputs[0]

    def _append_parts(self, layer: Any, inputs: tuple[str, ...], parts: Sequence[Part]) -> str:
        """Append operations that run one after the other; the last one bears the layer's name."""
        name = self.unique_name(layer.name)
        for operation, weights in parts[:-1]:
            part_name = self.unique_name(f"{name}/{operation.kind}")
            self.nodes.append(Node(part_name, operation, inputs, weights))
            inputs = (part_name,)
        operation, weights = parts[-1]
        self.nodes.append(Node(name, operation, inputs, weights))
        return name
