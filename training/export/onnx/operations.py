"""TensorFlow's operations in ONNX, those that an exported graph holds.

    elementwise     Add, Mul, Relu, ... the same in either order of axes
    along axes      Mean, Pad, Slice, Concat, ... with their axes renumbered
    convolutions    channels first
    products        Gemm, MatMul
    shapes          Reshape, Transpose, Unpack: in TensorFlow's order of axes

A rule takes the graph and an operation, and defines the operation's outputs in the graph.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from training.errors import ExportError
from training.export.onnx.graph import CHANNELS_FIRST, Graph, onnx_type, same_in_memory

__all__ = ["translated"]

Operation: TypeAlias = Any
Tensor: TypeAlias = tf.Tensor
Rule = Callable[[Graph, Operation], None]

_RULES: dict[str, Rule] = {}
"""By TensorFlow's name of the operation."""

_AXIS = {axis: place for place, axis in enumerate(CHANNELS_FIRST)}
"""Where an axis of `[N, h, w, C]` is with the channels first."""

_FARTHEST = 2**31 - 1
"""An end beyond every axis."""


def translated(inputs: Iterable[Tensor], outputs: Mapping[str, Tensor]) -> Graph:
    """A frozen TensorFlow graph in ONNX.

    Args:
        inputs: placeholders with the number of rows in front; they keep their names.
        outputs: by their names in ONNX, likewise.

    Raises:
        ExportError: an operation has no rule; the message names it.
    """
    graph = Graph()
    for tensor in inputs:
        graph.input(tensor)
    operations = _needed(outputs.values())
    unsupported = sorted({operation.type for operation in operations} - set(_RULES))
    if unsupported:
        raise ExportError(
            f"ONNX export does not support TensorFlow's {', '.join(unsupported)}, which the graph "
            "holds."
        )
    for operation in operations:
        _RULES[operation.type](graph, operation)
    for name, tensor in outputs.items():
        graph.output(name, tensor)
    return graph


def _needed(outputs: Iterable[Tensor]) -> list[Operation]:
    """What outputs depend on, but for placeholders, in the order in which it runs."""
    waiting = [tensor.op for tensor in outputs]
    source = waiting[0].graph
    needed: set[str] = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in needed and operation.type != "Placeholder":
            needed.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return [operation for operation in source.get_operations() if operation.name in needed]


def _rule(*kinds: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return add


# -- constants and names


@_rule("Const")
def _const(graph: Graph, operation: Operation) -> None:
    graph.hold(operation.outputs[0], tf.make_ndarray(operation.get_attr("value")))


@_rule("Identity", "StopGradient")
def _identity(graph: Graph, operation: Operation) -> None:
    graph.alias(operation.outputs[0], operation.inputs[0])


@_rule("Range")
def _range(graph: Graph, operation: Operation) -> None:
    start, limit, delta = map(graph.array, operation.inputs)
    graph.hold(operation.outputs[0], np.arange(start, limit, delta, start.dtype))


@_rule("Fill")
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


@_rule("Shape")
def _shape(graph: Graph, operation: Operation) -> None:
    (result,) = operation.outputs
    name = graph.add("Shape", graph.plain(operation.inputs[0]))
    graph.define(result, graph.add("Cast", name, to=onnx_type(result.dtype)))


@_rule("ZerosLike", "OnesLike")
def _filled_like(graph: Graph, operation: Operation) -> None:
    (like,), (result,) = operation.inputs, operation.outputs
    value = np.array(operation.type == "OnesLike", like.dtype.as_numpy_dtype)
    first = graph.has_channels_first(like)
    name = graph.channels_first(like) if first else graph.plain(like)
    name = graph.add("Expand", graph.constant(value), graph.add("Shape", name))
    graph.define(result, name, channels_first=first)


@_rule("Cast")
def _cast(graph: Graph, operation: Operation) -> None:
    (source,), (result,) = operation.inputs, operation.outputs
    if source.dtype == result.dtype:
        graph.alias(result, source)
    else:
        _elementwise(graph, operation, "Cast", to=onnx_type(result.dtype))


# -- elementwise


def _elementwise(graph: Graph, operation: Operation, kind: str, **attributes: Any) -> None:
    """With the channels first if an input has them there: the others are transposed."""
    inputs = operation.inputs
    first = any(map(graph.has_channels_first, inputs))
    names = map(graph.channels_first if first else graph.plain, inputs)
    graph.define(operation.outputs[0], graph.add(kind, *names, **attributes), channels_first=first)


def _same_elementwise(kind: str) -> Rule:
    return lambda graph, operation: _elementwise(graph, operation, kind)


_RULES |= {
    name: _same_elementwise(kind)
    for name, kind in {
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
    }.items()
}


@_rule("Softmax")
def _softmax(graph: Graph, operation: Operation) -> None:
    name = graph.add("Softmax", graph.plain(operation.inputs[0]), axis=-1)
    graph.define(operation.outputs[0], name)


# -- along axes


def _axes(values: Any, rank: int) -> list[int]:
    """Axes from 0 on; in the graph, some are counted from the end."""
    return [int(axis) % rank for axis in np.atleast_1d(values)]


def _in_order(graph: Graph, tensor: Tensor, removed: Sequence[int] = ()) -> bool:
    """Whether an operation can work with the channels first.

    Args:
        graph: which the tensor is in.
        tensor: the input.
        removed: axes that the result lacks. Those left have to keep their order: the channels, or
            all positions, have to be among them.
    """
    same_order = not removed or 3 in removed or {1, 2} <= set(removed)
    return graph.has_channels_first(tensor) and same_order


@_rule("Mean", "Sum", "Max", "Min")
def _reduce(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    axes = _axes(graph.array(operation.inputs[1]), len(source.shape))
    keeps = bool(operation.get_attr("keep_dims"))
    first = _in_order(graph, source, () if keeps else axes)
    name = graph.channels_first(source) if first else graph.plain(source)
    axes = sorted(_AXIS[axis] for axis in axes) if first else axes
    kind = f"Reduce{operation.type}"
    if operation.type == "Sum":  # the first to take its axes as an input
        name = graph.add(kind, name, graph.integers(axes), keepdims=int(keeps))
    else:
        name = graph.add(kind, name, axes=axes, keepdims=int(keeps))
    graph.define(result, name, channels_first=first and keeps)


@_rule("ArgMax")
def _argmax(graph: Graph, operation: Operation) -> None:
    source, axis = operation.inputs
    name = graph.add("ArgMax", graph.plain(source), axis=int(graph.array(axis)), keepdims=0)
    (result,) = operation.outputs
    graph.define(result, graph.add("Cast", name, to=onnx_type(result.dtype)))


@_rule("Squeeze")
def _squeeze(graph: Graph, operation: Operation) -> None:
    (source,), (result,) = operation.inputs, operation.outputs
    axes = _axes(operation.get_attr("squeeze_dims"), len(source.shape))
    first = _in_order(graph, source, axes)
    name = graph.channels_first(source) if first else graph.plain(source)
    axes = [_AXIS[axis] for axis in axes] if first else axes
    graph.define(result, graph.add("Squeeze", name, graph.integers(axes)))


@_rule("ExpandDims")
def _expand_dims(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    axes = _axes(graph.array(operation.inputs[1]), len(result.shape))
    graph.define(result, graph.add("Unsqueeze", graph.plain(source), graph.integers(axes)))


@_rule("Pad", "PadV2")
def _pad(graph: Graph, operation: Operation) -> None:
    source, margins, *value = operation.inputs
    first = _in_order(graph, source)
    name = graph.channels_first(source) if first else graph.plain(source)
    pads = graph.array(margins)  # [axes, (before, after)]
    pads = pads[list(CHANNELS_FIRST)] if first else pads
    inputs = [name, graph.integers(pads.T.ravel()), *map(graph.plain, value)]
    graph.define(operation.outputs[0], graph.add("Pad", *inputs), channels_first=first)


@_rule("ConcatV2")
def _concat(graph: Graph, operation: Operation) -> None:
    *sources, axis = operation.inputs
    (place,) = _axes(graph.array(axis), len(sources[0].shape))
    first = any(map(graph.has_channels_first, sources))
    names = list(map(graph.channels_first if first else graph.plain, sources))
    place = _AXIS[place] if first else place
    name = graph.add("Concat", *names, axis=place)
    graph.define(operation.outputs[0], name, channels_first=first)


@_rule("Split", "SplitV")
def _split(graph: Graph, operation: Operation) -> None:
    axis, source = operation.inputs[0], operation.inputs[-1]
    if operation.type == "SplitV":
        source, _sizes, axis = operation.inputs
    (place,) = _axes(graph.array(axis), len(source.shape))
    sizes = [result.shape[place] for result in operation.outputs]
    first = _in_order(graph, source)
    name = graph.channels_first(source) if first else graph.plain(source)
    place = _AXIS[place] if first else place
    parts = graph.add_many("Split", len(sizes), name, graph.integers(sizes), axis=place)
    for result, part in zip(operation.outputs, parts, strict=True):
        graph.define(result, part, channels_first=first)


@_rule("StridedSlice")
def _strided_slice(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    slices, inserted, dropped = _slices(graph, operation)
    first = _in_order(graph, source) and not inserted and not dropped
    name = graph.channels_first(source) if first else graph.plain(source)
    if slices:
        axes = [_AXIS[axis] for axis in slices] if first else list(slices)
        starts, ends, steps = zip(*slices.values(), strict=True)
        columns = map(graph.integers, (starts, ends, axes, steps))
        name = graph.add("Slice", name, *columns)
    if dropped:
        name = graph.add("Squeeze", name, graph.integers(dropped))
    if inserted:
        name = graph.add("Unsqueeze", name, graph.integers(inserted))
    graph.define(result, name, channels_first=first)


def _slices(
    graph: Graph, operation: Operation
) -> tuple[dict[int, tuple[int, int, int]], list[int], list[int]]:
    """What an index such as `x[None, ::-1, 0, 1:]` does.

    Returns:
        Start, end and step by axis of the input, for axes that are cut; axes of the result that
        are new; and axes of the input that are dropped.
    """
    if operation.get_attr("ellipsis_mask"):
        raise ExportError(f"ONNX export does not support the index at {operation.name!r}.")
    starts, ends, steps = (graph.array(tensor).tolist() for tensor in operation.inputs[1:])

    def marked(mask: str, place: int) -> bool:
        return bool(operation.get_attr(mask) >> place & 1)

    slices: dict[int, tuple[int, int, int]] = {}
    inserted: list[int] = []
    dropped: list[int] = []
    axis = kept = 0  # of the input and of the result
    for place, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        if marked("new_axis_mask", place):
            inserted.append(kept)
            kept += 1
            continue
        if marked("shrink_axis_mask", place):
            slices[axis] = start, start + 1 if start != -1 else _FARTHEST, 1
            dropped.append(axis)
        else:
            if marked("begin_mask", place):
                start = 0 if step > 0 else _FARTHEST
            if marked("end_mask", place):
                end = _FARTHEST if step > 0 else -_FARTHEST
            reverses_one = operation.inputs[0].shape[axis] == 1 and end == -_FARTHEST
            if (start, end, step) != (0, _FARTHEST, 1) and not reverses_one:
                slices[axis] = start, end, step
            kept += 1
        axis += 1
    return slices, inserted, dropped


# -- convolutions


@_rule("Conv2D", "DepthwiseConv2dNative")
def _convolution(graph: Graph, operation: Operation) -> None:
    image, kernel = operation.inputs
    height, width, inputs, outputs = kernel.shape
    if operation.type == "Conv2D":
        groups = image.shape[3] // inputs
        # [kh, kw, Cin, Cout] to [Cout, Cin, kh, kw]
        name = graph.add("Transpose", graph.plain(kernel), perm=(3, 2, 0, 1))
    else:
        groups = inputs
        # [kh, kw, C, M] to [C, M, kh, kw] to [C * M, 1, kh, kw]
        name = graph.add("Transpose", graph.plain(kernel), perm=(2, 3, 0, 1))
        shape = graph.integers((inputs * outputs, 1, height, width))
        name = graph.add("Reshape", name, shape)
    dilations = _in_space(operation.get_attr("dilations"))
    extents = [(taps - 1) * d + 1 for taps, d in zip((height, width), dilations, strict=True)]
    name = graph.add(
        "Conv",
        graph.channels_first(image),
        name,
        group=groups,
        kernel_shape=[height, width],
        dilations=dilations,
        **_windows(operation, extents),
    )
    graph.define(operation.outputs[0], name, channels_first=True)


@_rule("MaxPool", "AvgPool")
def _pooling(graph: Graph, operation: Operation) -> None:
    extents = _in_space(operation.get_attr("ksize"))
    name = graph.add(
        "MaxPool" if operation.type == "MaxPool" else "AveragePool",
        graph.channels_first(operation.inputs[0]),
        kernel_shape=extents,
        **_windows(operation, extents),
    )
    graph.define(operation.outputs[0], name, channels_first=True)


def _windows(operation: Operation, extents: Sequence[int]) -> dict[str, list[int]]:
    """Strides and pads of a convolution or pooling whose windows are as wide as `extents`."""
    if operation.get_attr("data_format") != b"NHWC":
        raise ExportError(f"ONNX export expects [N, h, w, C] at {operation.name!r}.")
    strides = _in_space(operation.get_attr("strides"))
    before, after = [0, 0], [0, 0]
    match operation.get_attr("padding"):
        case b"SAME":
            before, after = _same_padding(operation, extents, strides)
        case b"EXPLICIT":
            _, _, top, bottom, left, right, _, _ = operation.get_attr("explicit_paddings")
            before, after = [top, left], [bottom, right]
    return {"strides": strides, "pads": before + after}


def _same_padding(
    operation: Operation, extents: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The zeros before and after the rows and columns; an odd one goes after."""
    sides = zip(
        operation.inputs[0].shape[1:3],
        operation.outputs[0].shape[1:3],
        extents,
        strides,
        strict=True,
    )
    totals = [max((y - 1) * stride + extent - x, 0) for x, y, extent, stride in sides]
    before = [total // 2 for total in totals]
    return before, [total - zeros for total, zeros in zip(totals, before, strict=True)]


def _in_space(values: Sequence[int]) -> list[int]:
    """Those along height and width, of four axes `[N, h, w, C]`."""
    _, down, across, _ = values
    return [int(down), int(across)]


# -- products of matrices


@_rule("MatMul")
def _matmul(graph: Graph, operation: Operation) -> None:
    name = graph.add(
        "Gemm",
        *map(graph.plain, operation.inputs),
        transA=int(operation.get_attr("transpose_a")),
        transB=int(operation.get_attr("transpose_b")),
    )
    graph.define(operation.outputs[0], name)


@_rule("BatchMatMulV2")
def _batch_matmul(graph: Graph, operation: Operation) -> None:
    names = []
    for operand, adjoint in zip(operation.inputs, ("adj_x", "adj_y"), strict=True):
        name = graph.plain(operand)
        if operation.get_attr(adjoint):
            *outer, rows, columns = range(len(operand.shape))
            name = graph.add("Transpose", name, perm=[*outer, columns, rows])
        names.append(name)
    graph.define(operation.outputs[0], graph.add("MatMul", *names))


# -- shapes


@_rule("Reshape")
def _reshape(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    lengths = graph.array(operation.inputs[1])
    first = same_in_memory(result.shape)
    if first:
        lengths = lengths[list(CHANNELS_FIRST)]
    name = graph.add("Reshape", graph.in_memory_order(source), graph.integers(lengths))
    graph.define(result, name, channels_first=first)


@_rule("Transpose")
def _transpose(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    order = tuple(graph.array(operation.inputs[1]).tolist())
    if order == CHANNELS_FIRST and graph.has_channels_first(source):
        graph.define(result, graph.channels_first(source))
    else:
        graph.define(result, graph.add("Transpose", graph.plain(source), perm=order))


@_rule("Unpack")
def _unpack(graph: Graph, operation: Operation) -> None:
    (source,) = operation.inputs
    axis = operation.get_attr("axis") % len(source.shape)
    count = operation.get_attr("num")
    parts = graph.add_many(
        "Split", count, graph.plain(source), graph.integers([1] * count), axis=axis
    )
    for result, part in zip(operation.outputs, parts, strict=True):
        graph.define(result, graph.add("Squeeze", part, graph.integers([axis])))


@_rule("Pack")
def _pack(graph: Graph, operation: Operation) -> None:
    (result,) = operation.outputs
    axis = operation.get_attr("axis") % len(result.shape)
    axes = graph.integers([axis])
    parts = [graph.add("Unsqueeze", graph.plain(part), axes) for part in operation.inputs]
    graph.define(result, graph.add("Concat", *parts, axis=axis))
