"""Arithmetic on tensors in a Keras model, such as `x + y`, `x / 127.5 - 1`, `x[..., ::-1]`.

`keras.applications` preprocesses photos with it, in one of three ways:

    tf      x / 127.5 - 1
    torch   (x / 255 - mean) / deviation, by channel
    caffe   stack([x[..., 2], x[..., 1], x[..., 0]]) - mean, by channel
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.graph.keras_layers import Part
from training.graph.network import Operation

__all__ = ["Arithmetic", "is_channel", "read"]

Array = npt.NDArray[np.floating[Any]]

_MERGES = {"Add": "add", "Multiply": "multiply"}
_FLOATS = ("bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True)
class Arithmetic:
    """What an operator computes.

    Attributes:
        tensors: Keras's, that it reads.
        parts: operations that run one after the other; none where it changes nothing.
    """

    tensors: Sequence[Any]
    parts: Sequence[Part]


def is_channel(keras_node: Any) -> bool:
    """Whether the node takes one channel of a map, `x[..., 2]`: see `read` on `stack`."""
    return _is_operator(keras_node) and _channel(keras_node) is not None


def read(keras_node: Any) -> Arithmetic | None:
    """The operations and their weights; None where the node is no supported arithmetic.

    - Two tensors make an `add` or `multiply`.
    - A tensor `x` and a constant, a number or one of each channel, make a `rescaling`,
      `scale * x + offset`.
    - A tensor with its channels in another order, by `x[..., ::-1]`, `flip`, `take` or a `stack`
      of its channels, is a 1 x 1 convolution.

    Args:
        keras_node: of a functional model: an operator with its arguments.
    """
    if not _is_operator(keras_node):
        return None
    tensors = list(keras_node.input_tensors)
    kind = type(keras_node.operation).__name__
    if kind == "Cast":
        return Arithmetic(tensors, []) if keras_node.operation.dtype in _FLOATS else None
    if kind == "Stack":
        return _stacked(keras_node)
    order = _channel_order(keras_node)
    if order is not None:
        return Arithmetic(tensors, [_reordering(order, tensors[0])])
    if kind == "Negative":
        return Arithmetic(tensors, [_rescaling(-1.0, 0.0)])
    arguments = keras_node.arguments.args
    if len(arguments) != 2:
        return None
    if len(tensors) == 2:
        same_rank = len(tensors[0].shape) == len(tensors[1].shape)
        merge = _MERGES.get(kind)
        return Arithmetic(tensors, [(Operation(merge), {})]) if merge and same_rank else None
    first, second = arguments
    constant, is_second = (second, True) if first is tensors[0] else (first, False)
    values = _by_channel(constant, tensors[0].shape)
    coefficients = None if values is None else _scale_and_offset(kind, values, is_second)
    return Arithmetic(tensors, [_rescaling(*coefficients)]) if coefficients else None


def _is_operator(keras_node: Any) -> bool:
    module = type(keras_node.operation).__module__
    return module in ("keras.src.ops.numpy", "keras.src.ops.core")


def _rescaling(scale: Any, offset: Any) -> Part:
    weights = {"scale": np.asarray(scale, np.float64), "offset": np.asarray(offset, np.float64)}
    return Operation("rescaling"), weights


def _by_channel(constant: Any, shape: Sequence[int | None]) -> Array | None:
    """A constant as a scalar or `[C]`; None where it is neither.

    Args:
        constant: a number, an array or a tensor of TensorFlow's.
        shape: of the tensor that it meets, `[N, ..., C]`.
    """
    try:
        values = np.asarray(constant, np.float64)
    except (TypeError, ValueError):
        return None
    if values.size == 1 and values.ndim <= len(shape):
        return values.reshape(())
    channels = shape[-1] if 0 < values.ndim <= len(shape) else None
    by_channel = values.size == channels and values.shape[values.ndim - 1] == channels
    return values.reshape(-1) if by_channel else None


def _scale_and_offset(operator: str, values: Array, is_second: bool) -> tuple[Any, Any] | None:
    """Scale and offset of `x operator values` or, unless `is_second`, of `values operator x`."""
    match operator:
        case "Add":
            return 1.0, values
        case "Multiply":
            return values, 0.0
        case "Subtract":
            return (1.0, -values) if is_second else (-1.0, values)
        case "TrueDivide" | "Divide" if is_second:
            with np.errstate(divide="ignore"):
                return 1.0 / values, 0.0
    return None  # `values / x`, for instance, is not linear in x


def _channel_order(keras_node: Any) -> list[int] | None:
    """For each channel of the result, the one of the input that it is; None for another operator.

    Only of maps, `[N, h, w, C]`.
    """
    operator = keras_node.operation
    shape: Any = keras_node.input_tensors[0].shape
    if len(shape) != 4 or shape[-1] is None:
        return None
    channels = list(range(shape[-1]))
    match type(operator).__name__:
        case "GetItem":
            index = _last_index(keras_node.arguments.args[1], len(shape))
            return channels[index] if isinstance(index, slice) else None
        case "Flip" if operator.axis in (-1, 3):
            return channels[::-1]
        case "Take" if operator.axis in (-1, 3):
            indices = np.asarray(keras_node.arguments.args[1])
            fits = indices.ndim == 1 and np.isin(indices, channels).all()
            return [int(index) for index in indices] if fits else None
    return None


def _last_index(key: Any, rank: int) -> Any:
    """What a key takes of the last axis, if it takes all of the others; else None."""
    keys = list(key) if isinstance(key, tuple | list) else [key]
    if not keys or len(keys) > rank or (keys[0] is not Ellipsis and len(keys) != rank):
        return None
    whole = all(entry is Ellipsis or entry == slice(None) for entry in keys[:-1])
    return keys[-1] if whole else None


def _channel(keras_node: Any) -> int | None:
    """The channel that `x[..., 2]` takes of a map; None for another operator."""
    if type(keras_node.operation).__name__ != "GetItem":
        return None
    shape = keras_node.input_tensors[0].shape
    index = _last_index(keras_node.arguments.args[1], len(shape))
    if len(shape) != 4 or shape[-1] is None or not isinstance(index, int):
        return None
    return index % int(shape[-1])


def _stacked(keras_node: Any) -> Arithmetic | None:
    """A `stack` of channels of one map, along a new last axis: that map in another order."""
    if keras_node.operation.axis not in (-1, 3):
        return None
    sources, order = [], []
    for tensor in keras_node.input_tensors:
        operator, position, _output = tensor._keras_history
        source_node = operator._inbound_nodes[position]
        if not is_channel(source_node):
            return None
        sources.append(source_node.input_tensors[0])
        order.append(_channel(source_node))
    if any(source is not sources[0] for source in sources):
        return None
    return Arithmetic(sources[:1], [_reordering(order, sources[0])])


def _reordering(order: Sequence[Any], tensor: Any) -> Part:
    """A map's channels in another order: a 1 x 1 convolution, its kernel of zeros and ones."""
    channels = int(tensor.shape[-1])
    # [1, 1, Cin, Cout]: output channel j reads input channel order[j]
    kernel = np.zeros((1, 1, channels, len(order)), np.float32)
    kernel[0, 0, list(order), range(len(order))] = 1
    return Operation("convolution"), {"kernel": kernel, "bias": np.zeros(len(order), np.float32)}
