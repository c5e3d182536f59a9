"""A Keras classifier read as a `Network`: nested models flattened, batch norm folded away."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.errors import ExportError
from training.graph import keras_arithmetic
from training.graph.folding import fold_batch_norm, fold_zero_padding
from training.graph.keras_layers import Part, Shape, is_identity, translate
from training.graph.network import Network, Node

__all__ = ["from_keras", "functional"]


def from_keras(model: keras.Model) -> Network:
    """Read a functional, sequential or subclassed Keras classifier.

    Models inside the model are flattened, layers that do nothing at inference are left out, each
    batch norm that follows a convolution is folded into it, and a final softmax is left off: the
    network ends in logits. One output, with or without a sigmoid, stands for two classes: its value
    z becomes the logits -z / 2 and z / 2, whose softmax is sigmoid(-z), sigmoid(z).

    Raises:
        ExportError: a layer is not supported or holds a weight that is not finite (the message
            names it), the model has several inputs or outputs, or it does not end in a Dense layer.
    """
    reader = _Reader()
    graph = functional(model)
    input_name = reader.unique_name(graph.inputs[0].name)
    # What overflows here is caught by `_check_finite`, which names it.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        output = reader.read(graph, input_name)
        body = _ending_in_logits(reader.nodes, output)
        nodes = fold_zero_padding(fold_batch_norm(body))
        for node in nodes:
            _check_finite(node)
    return Network(input_name, nodes)


def functional(model: Any) -> Any:
    """The functional model behind a model: with one input and one output.

    A subclassed model that has been built is run once on a symbolic photo, which shows its layers.

    Raises:
        ExportError: it has none, or several inputs or outputs.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional or model
    elif not hasattr(model, "_nodes_by_depth"):
        shape = (getattr(model, "_build_shapes_dict", None) or {}).get("input_shape")
        if model.built and isinstance(shape, tuple | list) and len(shape) == 4:
            model = _traced(model, (None, *shape[1:]))
    if not hasattr(model, "_nodes_by_depth"):
        raise ExportError(
            f"Model {model.name!r} ({type(model).__name__}) is neither a functional model nor a "
            "Sequential model with a known input shape."
        )
    if len(model.inputs) != 1:
        raise ExportError(
            f"Model {model.name!r} has {len(model.inputs)} inputs. Only models with one can be "
            "exported."
        )
    if len(model.outputs) != 1:
        keys = sorted(model.output) if isinstance(model.output, dict) else model.output_names
        names = ", ".join(map(repr, keys))
        raise ExportError(
            f"Model {model.name!r} has {len(model.outputs)} outputs ({names}). Only models with "
            "one can be exported: save keras.Model(model.inputs, model.outputs[0]) instead, for "
            "the first."
        )
    return model


def _traced(layer: Any, shape: Shape) -> Any:
    """What a layer's or model's `call` does to a tensor of that shape, as a functional model.

    Raises:
        ExportError: it computes with something else than Keras's layers and operations.
    """
    tensor = keras.Input(batch_shape=shape)
    try:
        return keras.Model(tensor, layer.call(tensor), name=layer.name)
    except Exception as error:  # whatever the author's code raises on a symbolic tensor
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(
            f"Layer {layer.name!r} ({type(layer).__name__}) is not supported: its code is not made "
            f"of Keras's layers and operations alone ({reason})."
        ) from error


def _ending_in_logits(nodes: Sequence[Node], output: str) -> list[Node]:
    """The nodes, the last of which computes the logits: without the functions behind them.

    Raises:
        ExportError: the network does not end in a Dense layer with softmax, with a sigmoid of one
            output, or without either.
    """
    by_name = {node.name: node for node in nodes}
    ending, last_name = "", ""
    if _is_softmax_twice(by_name, output):
        raise ExportError(
            f"Layer {output!r} is a second softmax, which flattens the probabilities of the first. "
            "Remove one of them."
        )
    while output in by_name and by_name[output].operation.kind in ("softmax", "sigmoid"):
        node = by_name.pop(output)
        ending, last_name, (output,) = node.operation.kind, node.name, node.inputs
    head = by_name.get(output)
    if head is None or head.operation.kind != "dense":
        last = "" if head is None else f", not in {head.name!r} ({head.operation.kind})"
        raise ExportError(f"The network must end in a Dense layer, with or without softmax{last}.")
    classes = head.weights["kernel"].shape[1]
    if ending == "sigmoid" and classes > 1:
        raise ExportError(
            f"Layer {last_name!r} gives a sigmoid for each of {classes} outputs (multi-label): "
            "their probabilities do not compete, and BreedCAM explains one class out of several. "
            "Train the last layer with softmax, or without an activation."
        )
    if ending == "softmax" and classes == 1:
        raise ExportError(
            f"Layer {last_name!r} gives the softmax of one output, which is always 1. Two "
            "classes need two outputs, or one with a sigmoid."
        )
    if classes == 1:
        # kernel [F, 1] to [F, 2], bias [1] to [2]
        halves = {
            name: np.concatenate([-array / 2, array / 2], axis=-1)
            for name, array in head.weights.items()
        }
        by_name[head.name] = replace(head, weights=halves)
    for node in by_name.values():
        if node.operation.kind == "softmax":
            raise ExportError(
                f"Layer {node.name!r} (softmax) is supported only at the end of the network."
            )
    return list(by_name.values())


def _is_softmax_twice(nodes: Mapping[str, Node], output: str) -> bool:
    """Whether the last two functions are both a softmax."""
    last = nodes.get(output)
    if last is None or last.operation.kind != "softmax":
        return False
    before = nodes.get(last.inputs[0])
    return before is not None and before.operation.kind == "softmax"


def _check_weights(layer: Any) -> None:
    """Refuse a layer of which a weight is not finite."""
    for variable in layer.variables:
        values = np.asarray(keras.ops.convert_to_numpy(variable))
        if keras.backend.is_float_dtype(variable.dtype):
            _refuse_nonfinite(values.astype(np.float32), layer.name, f"weight {variable.name!r}")


def _check_finite(node: Node) -> None:
    """Refuse an operation that computes with something that float32 cannot hold."""
    for name, values in node.weights.items():
        _refuse_nonfinite(np.asarray(values, np.float32), node.name, f"{name} at inference")


def _refuse_nonfinite(values: npt.NDArray[np.float32], layer: str, weight: str) -> None:
    count = values.size - int(np.isfinite(values).sum())
    if count:
        are = "value is" if count == 1 else "values are"
        raise ExportError(
            f"Layer {layer!r}: {count} {are} NaN or infinite among the {values.size} of its "
            f"{weight}. The model is damaged, or its training diverged."
        )


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
                if keras_arithmetic.is_channel(keras_node):
                    continue  # read by the `stack` behind it
                arithmetic = keras_arithmetic.read(keras_node)
                tensors = arithmetic.tensors if arithmetic else keras_node.input_tensors
                inputs = tuple(_name(names, tensor) for tensor in tensors)
                names[id(keras_node.outputs[0])] = (
                    self._append_parts(layer, inputs, arithmetic.parts)
                    if arithmetic
                    else self._append(layer, inputs, [tuple(tensor.shape) for tensor in tensors])
                )
        return _name(names, graph.outputs[0])

    def _append(self, layer: Any, inputs: tuple[str, ...], shapes: Sequence[Shape]) -> str:
        """Append a layer's nodes; returns the name of its output."""
        if isinstance(layer, keras.Model):
            known = isinstance(layer, keras.Sequential) or hasattr(layer, "_nodes_by_depth")
            return self.read(functional(layer) if known else _traced(layer, shapes[0]), inputs[0])
        if isinstance(layer, keras.layers.Lambda):
            return self.read(_traced(layer, shapes[0]), inputs[0])
        if is_identity(layer):
            return inputs[0]
        if isinstance(layer, keras.layers.Layer):
            _check_weights(layer)
        return self._append_parts(layer, inputs, translate(layer, shapes))

    def _append_parts(self, layer: Any, inputs: tuple[str, ...], parts: Sequence[Part]) -> str:
        """Append operations that run one after the other; the last one bears the layer's name.

        Returns:
            The name of the output: that of the input where there are no operations.
        """
        if not parts:
            return inputs[0]
        name = self.unique_name(layer.name)
        for operation, weights in parts[:-1]:
            part_name = self.unique_name(f"{name}/{operation.kind}")
            self.nodes.append(Node(part_name, operation, inputs, weights))
            inputs = (part_name,)
        operation, weights = parts[-1]
        self.nodes.append(Node(name, operation, inputs, weights))
        return name


def _name(names: dict[int, str], tensor: Any) -> str:
    """The name of a tensor's node.

    Raises:
        ExportError: it is one channel of a map, which only a `stack` of such is read for.
    """
    if id(tensor) not in names:
        operator = tensor._keras_history.operation
        raise ExportError(f"Layer {operator.name!r} ({type(operator).__name__}) is not supported.")
    return names[id(tensor)]
