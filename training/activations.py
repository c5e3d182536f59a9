"""Element-wise nonlinearities, each with its derivative, in inference ops."""

import math
from typing import TypeAlias

import tensorflow as tf

from training.network import Operation

__all__ = ["KINDS", "apply", "derivative"]

Tensor: TypeAlias = tf.Tensor

KINDS = frozenset(
    {
        "elu",
        "gelu",
        "general_relu",
        "hard_sigmoid",
        "hard_silu",
        "prelu",
        "relu",
        "sigmoid",
        "silu",
        "tanh",
    }
)


def apply(operation: Operation, x: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The nonlinearity at `x`, of its shape.

    Args:
        operation: of a kind in `KINDS`.
        x: float32.
        alpha: a PReLU's slopes.

    Raises:
        ValueError: another kind.
    """
    match operation.kind:
        case "relu":
            return tf.nn.relu(x)
        case "general_relu":
            return _general_relu(operation, x)
        case "prelu":
            return tf.nn.relu(x) + alpha * tf.minimum(x, 0.0)
        case "elu":
            return tf.nn.relu(x) + operation.slope * (tf.exp(tf.minimum(x, 0.0)) - 1.0)
        case "sigmoid":
            return tf.sigmoid(x)
        case "tanh":
            return tf.tanh(x)
        case "silu":
            return x * tf.sigmoid(x)
        case "hard_sigmoid":
            return _hard_sigmoid(x)
        case "hard_silu":
            return x * _hard_sigmoid(x)
        case "gelu":
            return x * _normal_cdf(x)
    raise ValueError(operation.kind)


def derivative(operation: Operation, x: Tensor, y: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The derivative at `x`, of its shape; at a kink, the side on which TensorFlow stands.

    Args:
        operation: of a kind in `KINDS`.
        x: float32.
        y: what `apply` gave for it.
        alpha: a PReLU's slopes.

    Raises:
        ValueError: another kind.
    """
    match operation.kind:
        case "relu":
            return _where(y > 0)
        case "general_relu":
            return _general_relu_derivative(operation, x)
        case "prelu":
            return _where(x > 0) + alpha * _where(x <= 0)
        case "elu":
            return _where(x > 0) + (y + operation.slope) * _where(x <= 0)
        case "sigmoid":
            return y * (1.0 - y)
        case "tanh":
            return 1.0 - y * y
        case "silu":
            gate = tf.sigmoid(x)
            return gate * (1.0 + x - y)
        case "hard_sigmoid":
            return _inside(x) / 6.0
        case "hard_silu":
            return _hard_sigmoid(x) + x * _inside(x) / 6.0
        case "gelu":
            density = tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
            return _normal_cdf(x) + x * density
    raise ValueError(operation.kind)


def _general_relu(operation: Operation, x: Tensor) -> Tensor:
    """`ceiling` at most; `x` from the threshold on; `slope * (x - threshold)` below it."""
    threshold = operation.threshold
    above = tf.nn.relu(x) if threshold == 0 else x * _where(x > threshold)
    if operation.ceiling is not None:
        above = tf.minimum(above, operation.ceiling)
    if operation.slope == 0:
        return above
    return above + operation.slope * tf.minimum(x - threshold, 0.0)


def _general_relu_derivative(operation: Operation, x: Tensor) -> Tensor:
    above = _where(x > operation.threshold)
    below = operation.slope * (1.0 - above)
    if operation.ceiling is not None:
        above = above * _where(x < operation.ceiling)
    return above + below if operation.slope else above


def _hard_sigmoid(x: Tensor) -> Tensor:
    return tf.clip_by_value(x / 6.0 + 0.5, 0.0, 1.0)


def _inside(x: Tensor) -> Tensor:
    """1 where the hard sigmoid rises."""
    return _where(x > -3.0) * _where(x < 3.0)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2)))


def _where(condition: Tensor) -> Tensor:
    return tf.cast(condition, tf.float32)
