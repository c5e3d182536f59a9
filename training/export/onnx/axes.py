"""Operations along axes: with the channels first, axes are renumbered.

Where a result would lose an axis and come out in another order, or is reshaped, TensorFlow's order
of axes is restored first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.export.onnx.graph import (
    CHANNELS_FIRST,
    Graph,
    Operation,
    Rule,
    onnx_type,
    same_in_memory,
)

__all__ = ["RULES"]

_AXIS = {axis: place for place, axis in enumerate(CHANNELS_FIRST)}
"""Where an axis of `[N, h, w, C]` is with the channels first."""

_FARTHEST = 2**31 - 1
"""An end beyond every axis."""


def _axes(values: Any, rank: int) -> list[int]:
    """Axes from 0 on; in the graph, some are counted from the end."""
    return [int(axis) % rank for axis in np.atleast_1d(values)]


def _keeps_order(removed: Sequence[int]) -> bool:
    """Whether the axes of `[N, h, w, C]` that are left stand in one order, channels first or not.

    So it is without the channels, or without positions.
    """
    return 3 in removed or {1, 2} <= set(removed)


def _reduce(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    axes = _axes(graph.array(operation.inputs[1]), len(source.shape))
    keeps = bool(operation.get_attr("keep_dims"))
    first = graph.has_channels_first(source) and (keeps or _keeps_order(axes))
    name = graph.name(source, channels_first=first)
    axes = sorted(_AXIS[axis] for axis in axes) if first else axes
    kind = f"Reduce{operation.type}"
    if operation.type == "Sum":  # the first to take its axes as an input
        name = graph.add(kind, name, graph.integers(axes), keepdims=int(keeps))
    else:
        name = graph.add(kind, name, axes=axes, keepdims=int(keeps))
    graph.define(result, name, channels_first=first and keeps)


def _argmax(graph: Graph, operation: Operation) -> None:
    source, axis = operation.inputs
    name = graph.add("ArgMax", graph.plain(source), axis=int(graph.array(axis)), keepdims=0)
    (result,) = operation.outputs
    graph.define(result, graph.add("Cast", name, to=onnx_type(result.dtype)))


def _squeeze(graph: Graph, operation: Operation) -> None:
    (source,), (result,) = operation.inputs, operation.outputs
    axes = _axes(operation.get_attr("squeeze_dims"), len(source.shape))
    first = graph.has_channels_first(source) and _keeps_order(axes)
    name = graph.name(source, channels_first=first)
    axes = [_AXIS[axis] for axis in axes] if first else axes
    graph.define(result, graph.add("Squeeze", name, graph.integers(axes)))


def _expand_dims(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    axes = _axes(graph.array(operation.inputs[1]), len(result.shape))
    graph.define(result, graph.add("Unsqueeze", graph.plain(source), graph.integers(axes)))


def _pad(graph: Graph, operation: Operation) -> None:
    source, margins, *value = operation.inputs
    first = graph.has_channels_first(source)
    name = graph.name(source, channels_first=first)
    pads = graph.array(margins)  # [axes, (before, after)]
    pads = pads[list(CHANNELS_FIRST)] if first else pads
    inputs = [name, graph.integers(pads.T.ravel()), *map(graph.plain, value)]
    graph.define(operation.outputs[0], graph.add("Pad", *inputs), channels_first=first)


def _concat(graph: Graph, operation: Operation) -> None:
    *sources, axis = operation.inputs
    (place,) = _axes(graph.array(axis), len(sources[0].shape))
    first = any(map(graph.has_channels_first, sources))
    names = [graph.name(tensor, channels_first=first) for tensor in sources]
    place = _AXIS[place] if first else place
    name = graph.add("Concat", *names, axis=place)
    graph.define(operation.outputs[0], name, channels_first=first)


def _split(graph: Graph, operation: Operation) -> None:
    axis, source = operation.inputs[0], operation.inputs[-1]
    if operation.type == "SplitV":
        source, _sizes, axis = operation.inputs
    (place,) = _axes(graph.array(axis), len(source.shape))
    sizes = [result.shape[place] for result in operation.outputs]
    first = graph.has_channels_first(source)
    name = graph.name(source, channels_first=first)
    place = _AXIS[place] if first else place
    parts = graph.add_many("Split", len(sizes), name, graph.integers(sizes), axis=place)
    for result, part in zip(operation.outputs, parts, strict=True):
        graph.define(result, part, channels_first=first)


def _strided_slice(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    slices, inserted, dropped = _slices(graph, operation)
    first = graph.has_channels_first(source) and not inserted and not dropped
    name = graph.name(source, channels_first=first)
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
    """What an index such as `x[None, ::-1, 0, ..., 1:]` does.

    Returns:
        Start, end and step by axis of the input, for axes that are cut; axes of the result that
        are new; and axes of the input that are dropped.
    """
    starts, ends, steps = (graph.array(tensor).tolist() for tensor in operation.inputs[1:])

    def marked(mask: str, place: int) -> bool:
        return bool(operation.get_attr(mask) >> place & 1)

    rank = len(operation.inputs[0].shape)
    apart = operation.get_attr("new_axis_mask") | operation.get_attr("ellipsis_mask")
    named = len(starts) - apart.bit_count()  # axes of the input that the index names
    slices: dict[int, tuple[int, int, int]] = {}
    inserted: list[int] = []
    dropped: list[int] = []
    axis = kept = 0  # of the input and of the result
    for place, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        if marked("ellipsis_mask", place):
            axis, kept = axis + rank - named, kept + rank - named
            continue
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


def _reshape(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    lengths = graph.array(operation.inputs[1])
    first = same_in_memory(result.shape)
    if first:
        lengths = lengths[list(CHANNELS_FIRST)]
    name = graph.add("Reshape", graph.in_memory_order(source), graph.integers(lengths))
    graph.define(result, name, channels_first=first)


def _transpose(graph: Graph, operation: Operation) -> None:
    source, (result,) = operation.inputs[0], operation.outputs
    order = tuple(graph.array(operation.inputs[1]).tolist())
    if order == CHANNELS_FIRST and graph.has_channels_first(source):
        graph.define(result, graph.channels_first(source))
    else:
        graph.define(result, graph.add("Transpose", graph.plain(source), perm=order))


def _unpack(graph: Graph, operation: Operation) -> None:
    (source,) = operation.inputs
    axis = operation.get_attr("axis") % len(source.shape)
    count = operation.get_attr("num")
    parts = graph.add_many(
        "Split", count, graph.plain(source), graph.integers([1] * count), axis=axis
    )
    for result, part in zip(operation.outputs, parts, strict=True):
        graph.define(result, graph.add("Squeeze", part, graph.integers([axis])))


def _pack(graph: Graph, operation: Operation) -> None:
    (result,) = operation.outputs
    axis = operation.get_attr("axis") % len(result.shape)
    axes = graph.integers([axis])
    parts = [graph.add("Unsqueeze", graph.plain(part), axes) for part in operation.inputs]
    graph.define(result, graph.add("Concat", *parts, axis=axis))


RULES: dict[str, Rule] = {
    "ArgMax": _argmax,
    "ConcatV2": _concat,
    "ExpandDims": _expand_dims,
    "Max": _reduce,
    "Mean": _reduce,
    "Min": _reduce,
    "Pack": _pack,
    "Pad": _pad,
    "PadV2": _pad,
    "Reshape": _reshape,
    "Split": _split,
    "SplitV": _split,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sum": _reduce,
    "Transpose": _transpose,
    "Unpack": _unpack,
}
"""By TensorFlow's name of the operation."""
