"""Activation functions, each with its derivative, in inference ops.

Slope, threshold `t` and ceiling are the operation's; `alpha` is a weight.

    kind            f(x)                                  f'(x)

    relu            max(x, 0)                             1 if x > 0, else 0
    general_relu    x, at most the ceiling, if x > t      1 if t < x < ceiling, 0 above it
                    slope (x - t) else                    slope
    prelu           x if x > 0, else alpha x              1, alpha
    elu             x if x > 0, else slope (e^x - 1)      1, slope e^x = f(x) + slope
    sigmoid         1 / (1 + e^-x)                        f(x) (1 - f(x))
    tanh            tanh x                                1 - f(x)^2
    silu            x sigmoid(x)                          sigmoid(x) (1 + x - f(x))
    hard_sigmoid    x / 6 + 1/2, clipped to 0..1          1/6 if -3 < x < 3, else 0
    hard_silu       x hard_sigmoid(x)                     hard_sigmoid(x) + x hard_sigmoid'(x)
    gelu            x P(x), P the normal CDF              P(x) + x p(x), p the normal density
"""

import math
from typing import TypeAlias

import tensorflow as tf

from training.graph.network import Operation

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
    """The activation function at `x`, float32 of the same shape.

    Args:
        operation: of a kind in `KINDS`.
        x: float32, of any shape.
        alpha: slopes of a PReLU, which broadcast to `x`.

    Raises:
        ValueError: the kind is not in `KINDS`.
    """
    match operation.kind:
        case "relu":
            return tf.nn.relu(x)
        case "general_relu":
            return _general_relu(operation, x)
        case "prelu":
            return tf.nn.relu(x) + alpha * tf.minimum(x, 0.0)
        case "elu":
            # The minimum keeps e^x from overflowing where x is large.
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
    """The derivative at `x`, float32 of the same shape; at a kink, the one TensorFlow takes.

    Args:
        operation: of a kind in `KINDS`.
        x: float32, of any shape.
        y: `apply(operation, x, alpha)`.
        alpha: slopes of a PReLU, which broadcast to `x`.

    Raises:
        ValueError: the kind is not in `KINDS`.
    """
    match operation.kind:
        case "relu":
            return _indicator(y > 0)
        case "general_relu":
            return _general_relu_derivative(operation, x)
        case "prelu":
            return _indicator(x > 0) + alpha * _indicator(x <= 0)
        case "elu":
            return _indicator(x > 0) + (y + operation.slope) * _indicator(x <= 0)
        case "sigmoid":
            return y * (1.0 - y)
        case "tanh":
            return 1.0 - y * y
        case "silu":
            gate = tf.sigmoid(x)
            return gate * (1.0 + x - y)
        case "hard_sigmoid":
            return _rises(x) / 6.0
        case "hard_silu":
            return _hard_sigmoid(x) + x * _rises(x) / 6.0
        case "gelu":
            density = tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
            return _normal_cdf(x) + x * density
    raise ValueError(operation.kind)


def _general_relu(operation: Operation, x: Tensor) -> Tensor:
    """`min(x, ceiling)` above the threshold; `slope * (x - threshold)` below it."""
    threshold = operation.threshold
    above = tf.nn.relu(x) if threshold == 0 else x * _indicator(x > threshold)
    if operation.ceiling is not None:
        above = tf.minimum(above, operation.ceiling)
    if operation.slope == 0:
        return above
    # At each position, one of the two terms is zero.
    return above + operation.slope * tf.minimum(x - threshold, 0.0)


def _general_relu_derivative(operation: Operation, x: Tensor) -> Tensor:
    above = _indicator(x > operation.threshold)
    below = operation.slope * (1.0 - above)
    if operation.ceiling is not None:
        above = above * _indicator(x < operation.ceiling)
    return above + below if operation.slope else above


def _hard_sigmoid(x: Tensor) -> Tensor:
    return tf.clip_by_value(x / 6.0 + 0.5, 0.0, 1.0)


def _rises(x: Tensor) -> Tensor:
    """1 where the hard sigmoid rises."""
    return _indicator(x > -3.0) * _indicator(x < 3.0)


def _normal_cdf(x: Tensor) -> Tensor:
    """The cumulative distribution function of the standard normal distribution."""
    return 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2)))


def _indicator(condition: Tensor) -> Tensor:
    """1 where the condition holds, 0 elsewhere; float32."""
    return tf.cast(condition, tf.float32)
