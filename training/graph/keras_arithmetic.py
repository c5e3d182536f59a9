"""Sums and products that a Keras model's author wrote as `x + y` or `x * 0.5`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from training.graph.network import Operation

__all__ = ["read"]

Array = npt.NDArray[np.floating[Any]]

_MERGES = {"Add": "add", "Multiply": "multiply"}


def read(keras_node: Any) -> tuple[Operation, Mapping[str, Array]] | None:
    """The operation and its weights; None where the node is no supported sum or product.

    Two tensors make an `add` or `multiply`. A tensor `x` and a number make a `rescaling`,
    `scale * x + offset`.

    Args:
        keras_node: of a functional model: an operator with its arguments.
    """
    operator = type(keras_node.operation)
    if operator.__module__ != "keras.src.ops.numpy" or len(keras_node.arguments.args) != 2:
        return None
    first, second = keras_node.arguments.args
    tensors = list(keras_node.input_tensors)
    if len(tensors) == 2:
        same_rank = len(tensors[0].shape) == len(tensors[1].shape)
        kind = _MERGES.get(operator.__name__)
        return (Operation(kind), {}) if kind and same_rank else None
    number, is_second = (second, True) if first is tensors[0] else (first, False)
    if not isinstance(number, int | float):
        return None
    coefficients = _scale_and_offset(operator.__name__, float(number), is_second)
    if coefficients is None:
        return None
    scale, offset = (np.asarray(value, np.float64) for value in coefficients)
    return Operation("rescaling"), {"scale": scale, "offset": offset}


def _scale_and_offset(operator: str, number: float, is_second: bool) -> tuple[float, float] | None:
    """Scale and offset of `x operator number` or, unless `is_second`, of `number operator x`."""
    match operator:
        case "Add":
            return 1.0, number
        case "Multiply":
            return number, 0.0
        case "Subtract":
            return (1.0, -number) if is_second else (-1.0, number)
        case "TrueDivide" | "Divide" if is_second:
            return 1.0 / number, 0.0
    return None  # `number / x`, for instance, is not linear in x
