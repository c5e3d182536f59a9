"""Convolutions and poolings, which ONNX has with the channels first, and products of matrices."""

from collections.abc import Sequence

from training.errors import ExportError
from training.export.onnx.graph import Graph, Operation, Rule

__all__ = ["RULES"]


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


def _matmul(graph: Graph, operation: Operation) -> None:
    name = graph.add(
        "Gemm",
        *map(graph.plain, operation.inputs),
        transA=int(operation.get_attr("transpose_a")),
        transB=int(operation.get_attr("transpose_b")),
    )
    graph.define(operation.outputs[0], name)


def _batch_matmul(graph: Graph, operation: Operation) -> None:
    names = []
    for operand, adjoint in zip(operation.inputs, ("adj_x", "adj_y"), strict=True):
        name = graph.plain(operand)
        if operation.get_attr(adjoint):
            *outer, rows, columns = range(len(operand.shape))
            name = graph.add("Transpose", name, perm=[*outer, columns, rows])
        names.append(name)
    graph.define(operation.outputs[0], graph.add("MatMul", *names))


RULES: dict[str, Rule] = {
    "AvgPool": _pooling,
    "BatchMatMulV2": _batch_matmul,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "MatMul": _matmul,
    "MaxPool": _pooling,
}
"""By TensorFlow's name of the operation."""
