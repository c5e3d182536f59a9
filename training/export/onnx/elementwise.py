"""Constants, and operations that treat each value alike, whatever the order of axes."""

from typing import Any

import numpy as np
import tensorflow as tf

from training.export.onnx.graph import Graph, Operation, Rule, onnx_type

__all__ = ["RULES"]

_SAME = {
    "AddV2": "Add",
    "Equal": "Equal",
    "Erf": "Erf",
    "Exp": "Exp",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "LogicalAnd": "And",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mul": "Mul",
    "Neg": "Neg",
    "RealDiv": "Div",
    "Relu": "Relu",
    "SelectV2": "Where",
    "Sigmoid": "Sigmoid",
    "Sqrt": "Sqrt",
    "Sub": "Sub",
    "Tanh": "Tanh",
}
"""By TensorFlow's name of the operation, ONNX's."""


def _const(graph: Graph, operation: Operation) -> None:
    graph.hold(operation.outputs[0], tf.make_ndarray(operation.get_attr("value")))


def _identity(graph: Graph, operation: Operation) -> None:
    graph.alias(operation.outputs[0], operation.inputs[0])


def _range(graph: Graph, operation: Operation) -> None:
    bounds = (graph.array(tensor).item() for tensor in operation.inputs)
    (result,) = operation.outputs
    graph.hold(result, np.arange(*bounds, dtype=result.dtype.as_numpy_dtype))


def _fill(graph: Graph, operation: Operation) -> None:
    shape, value = operation.inputs
    lengths = graph.constant_or_none(shape)
    if lengths is not None:
        graph.hold(operation.outputs[0], np.full(lengths, graph.array(value)))
        return
    name = graph.add("Cast", graph.plain(shape), to=onnx_type(tf.int64))
    graph.define(
        operation.outputs[0], graph.add("Expand", graph.constant(graph.array(value)), name)
    )


def _shape(graph: Graph, operation: Operation) -> None:
    (result,) = operation.outputs
    name = graph.add("Shape", graph.plain(operation.inputs[0]))
    graph.define(result, graph.add("Cast", name, to=onnx_type(result.dtype)))


def _filled_like(graph: Graph, operation: Operation) -> None:
    (like,), (result,) = operation.inputs, operation.outputs
    value = np.array(operation.type == "OnesLike", like.dtype.as_numpy_dtype)
    first = graph.has_channels_first(like)
    name = graph.name(like, channels_first=first)
    name = graph.add("Expand", graph.constant(value), graph.add("Shape", name))
    graph.define(result, name, channels_first=first)


def _cast(graph: Graph, operation: Operation) -> None:
    (source,), (result,) = operation.inputs, operation.outputs
    if source.dtype == result.dtype:
        graph.alias(result, source)
    else:
        _elementwise(graph, operation, "Cast", to=onnx_type(result.dtype))


def _elementwise(graph: Graph, operation: Operation, kind: str, **attributes: Any) -> None:
    """With the channels first if an input has them there: the others are transposed."""
    inputs = operation.inputs
    first = any(map(graph.has_channels_first, inputs))
    names = [graph.name(tensor, channels_first=first) for tensor in inputs]
    graph.define(operation.outputs[0], graph.add(kind, *names, **attributes), channels_first=first)


def _same_elementwise(kind: str) -> Rule:
    return lambda graph, operation: _elementwise(graph, operation, kind)


def _softmax(graph: Graph, operation: Operation) -> None:
    name = graph.add("Softmax", graph.plain(operation.inputs[0]), axis=-1)
    graph.define(operation.outputs[0], name)


RULES: dict[str, Rule] = {name: _same_elementwise(kind) for name, kind in _SAME.items()} | {
    "Cast": _cast,
    "Const": _const,
    "Fill": _fill,
    "Identity": _identity,
    "OnesLike": _filled_like,
    "Range": _range,
    "Shape": _shape,
    "Softmax": _softmax,
    "ZerosLike": _filled_like,
}
"""By TensorFlow's name of the operation."""
