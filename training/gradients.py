"""Operations forwards and backwards, with inference ops alone.

A SavedModel that holds TensorFlow's own gradient ops (`ReluGrad`, `Conv2DBackpropInput`,
`BroadcastGradientArgs`) either does not load in OpenVINO or gives wrong maps there. So each
backward pass is written as forward ops: ReLU's as a product with a mask, a residual sum's as the
gradient itself, a convolution's as a convolution with the flipped, transposed kernel. The tests
hold each rule to TensorFlow's own gradient.
"""

import functools
import math
import operator
from collections.abc import Iterable
from typing import Any, TypeAlias

import tensorflow as tf

from training import activations, pooling
from training.errors import ExportError
from training.network import Network, Node

__all__ = ["backward", "forward", "run", "run_backward", "shapes"]

Tensor: TypeAlias = tf.Tensor
Weights = dict[str, dict[str, Any]]
"""Tensors or variables, by node and then by their name in the node."""


def run(network: Network, weights: Weights, image: Tensor) -> dict[str, Tensor]:
    """Run a network forwards.

    Args:
        network: the operations.
        weights: of every node, in any float type.
        image: float32 `[N, h, w, 3]`, preprocessed.

    Returns:
        Every node's output, float32, by name; and `image` under the network's input name.
    """
    values = {network.input: image}
    for node in network.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.name] = forward(node, _as_float32(weights[node.name]), inputs)
    return values


def run_backward(
    network: Network,
    weights: Weights,
    values: dict[str, Tensor],
    seed: Tensor,
    layers: Iterable[str],
) -> dict[str, Tensor]:
    """Carry a gradient from the logits back to layers.

    Args:
        network: the operations.
        weights: as in `run`.
        values: what `run` returned.
        seed: the gradient at the logits, float32 `[N, classes]`: one-hot for a class's logit.
        layers: names of the nodes whose gradient is wanted.

    Returns:
        The gradient at each of `layers`, float32, of the shape of its output or, where it is
        constant in space, `[N, 1, 1, C]`.
    """
    wanted = set(layers)
    leads_to = _downstream(network, wanted)
    gradients = {network.nodes[-1].name: seed}
    for node in reversed(network.nodes):
        open_inputs = [name for name in node.inputs if name in leads_to]
        if node.name not in gradients or not open_inputs:
            continue
        inputs = [values[name] for name in node.inputs]
        results = backward(
            node, _as_float32(weights[node.name]), gradients[node.name], inputs, values[node.name]
        )
        for name, gradient in zip(node.inputs, results, strict=True):
            if name in leads_to:
                known = gradients.get(name)
                gradients[name] = gradient if known is None else known + gradient
    return {name: gradients[name] for name in wanted}


def shapes(network: Network, input_size: int) -> dict[str, tuple[int, ...]]:
    """Each node's output shape, without the batch, for a square input of that many pixels.

    Raises:
        ExportError: the network does not take that size.
    """
    specs = {
        node.name: {name: tf.TensorSpec(w.shape, tf.float32) for name, w in node.weights.items()}
        for node in network.nodes
    }
    image = tf.TensorSpec((None, input_size, input_size, 3), tf.float32)
    try:
        outputs = (
            tf.function(lambda weights, photos: run(network, weights, photos), autograph=False)
            .get_concrete_function(specs, image)
            .structured_outputs
        )
    except (ValueError, TypeError) as error:
        raise ExportError(
            f"The network does not run on photos of {input_size} x {input_size} pixels: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return {name: tuple(value.shape[1:]) for name, value in outputs.items()}


def _downstream(network: Network, wanted: set[str]) -> set[str]:
    """The wanted nodes and all that depend on them: where a gradient has to pass."""
    found = {network.node(name).name for name in wanted}
    for node in network.nodes:
        if found.intersection(node.inputs):
            found.add(node.name)
    return found


def _as_float32(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tf.cast(weight, tf.float32) for name, weight in weights.items()}


def forward(node: Node, weights: dict[str, Tensor], inputs: list[Tensor]) -> Tensor:
    """A node's output, float32.

    Raises:
        ExportError: the operation has no forward rule; names the layer.
    """
    operation, x = node.operation, inputs[0]
    if operation.kind in activations.KINDS:
        return activations.apply(operation, x, weights.get("alpha"))
    match operation.kind:
        case "convolution" | "depthwise_convolution":
            return _convolve(node, x, weights["kernel"]) + weights["bias"]
        case "dense":
            return tf.linalg.matmul(x, weights["kernel"]) + weights["bias"]
        case "batch_norm" | "rescaling":
            return x * weights["scale"] + weights["offset"]
        case "add":
            return functools.reduce(operator.add, inputs)
        case "multiply":
            return functools.reduce(operator.mul, inputs)
        case "concatenate":
            return tf.concat(inputs, axis=-1)
        case "zero_padding":
            return tf.pad(x, [(0, 0), *operation.margins, (0, 0)])
        case "cropping":
            (top, bottom), (left, right) = operation.margins
            height, width = x.shape[1:3]
            return x[:, top : height - bottom, left : width - right, :]
        case "max_pooling" | "average_pooling":
            return pooling.forward(operation, x)
        case "global_average_pooling":
            return tf.reduce_mean(x, axis=(1, 2))
        case "global_max_pooling":
            return tf.reduce_max(x, axis=(1, 2))
        case "reshape":
            return tf.reshape(x, (-1, *_resolved(operation.shape, x)))
    raise ExportError(f"Layer {node.name!r}: no forward rule for {operation.kind}.")


def backward(
    node: Node, weights: dict[str, Tensor], gradient: Tensor, inputs: list[Tensor], output: Tensor
) -> list[Tensor]:
    """The gradient at each input of a node.

    Args:
        node: the operation.
        weights: its weights, float32.
        gradient: at its output; of its shape, or `[N, 1, 1, C]` where constant in space.
        inputs: what it was run on.
        output: what it gave.

    Raises:
        ExportError: the operation has no backward rule; names the layer.
    """
    operation, x = node.operation, inputs[0]
    if operation.kind in activations.KINDS:
        alpha = weights.get("alpha")
        return [gradient * activations.derivative(operation, x, output, alpha)]
    match operation.kind:
        case "convolution" | "depthwise_convolution":
            return [_convolution_backward(node, weights["kernel"], gradient, x, output)]
        case "dense":
            return [tf.linalg.matmul(gradient, weights["kernel"], transpose_b=True)]
        case "batch_norm" | "rescaling":
            return [gradient * weights["scale"]]
        case "add":
            return [_sum_to(gradient, each, output) for each in inputs]
        case "multiply":
            return _multiply_backward(gradient, inputs, output)
        case "concatenate":
            return list(tf.split(gradient, [each.shape[-1] for each in inputs], axis=-1))
        case "zero_padding":
            (top, _), (left, _) = operation.margins
            height, width = x.shape[1:3]
            full = _in_full(gradient, output)
            return [full[:, top : top + height, left : left + width, :]]
        case "cropping":
            return [tf.pad(_in_full(gradient, output), [(0, 0), *operation.margins, (0, 0)])]
        case "max_pooling" | "average_pooling":
            return [pooling.backward(operation, _in_full(gradient, output), x, output)]
        case "global_average_pooling":
            positions = x.shape[1] * x.shape[2]
            return [tf.reshape(gradient / float(positions), (-1, 1, 1, x.shape[-1]))]
        case "global_max_pooling":  # TensorFlow, too, shares it among equals
            hits = tf.cast(x >= output[:, None, None, :], tf.float32)
            share = gradient[:, None, None, :] / tf.reduce_sum(hits, axis=(1, 2), keepdims=True)
            return [hits * share]
        case "reshape":
            return [tf.reshape(_in_full(gradient, output), (-1, *x.shape[1:]))]
    raise ExportError(f"Layer {node.name!r}: no backward rule for {operation.kind}.")


def _resolved(shape: tuple[int, ...], x: Tensor) -> list[int]:
    """A reshape's target without -1, which stands for the batch alone."""
    known = math.prod(extent for extent in shape if extent != -1)
    return [math.prod(x.shape[1:]) // known if extent == -1 else extent for extent in shape]


def _multiply_backward(gradient: Tensor, inputs: list[Tensor], output: Tensor) -> list[Tensor]:
    """To each factor the gradient times the others, summed where the factor was broadcast."""
    results = []
    for index, each in enumerate(inputs):
        others = functools.reduce(operator.mul, inputs[:index] + inputs[index + 1 :])
        results.append(_sum_to(gradient * others, each, output))
    return results


def _sum_to(gradient: Tensor, factor: Tensor, output: Tensor) -> Tensor:
    """A gradient at an output, at an input that was broadcast to it."""
    axes = [
        axis
        for axis in range(1, len(output.shape))
        if factor.shape[axis] == 1 and output.shape[axis] != 1
    ]
    if not axes:
        return gradient
    return tf.reduce_sum(gradient * tf.ones_like(output), axis=axes, keepdims=True)


def _convolve(node: Node, x: Tensor, kernel: Tensor) -> Tensor:
    operation = node.operation
    padding: Any = operation.padding.upper()
    if operation.kind == "depthwise_convolution":
        return tf.nn.depthwise_conv2d(x, kernel, (1, *operation.strides, 1), padding)
    if padding == "VALID" and any(map(any, operation.margins)):
        padding = [(0, 0), *operation.margins, (0, 0)]
    return tf.nn.conv2d(x, kernel, operation.strides, padding)


def _turned_convolution(node: Node, kernel: Tensor, gradient: Tensor) -> Tensor:
    """Convolve with the flipped kernel, from output channels to input channels."""
    if node.operation.kind == "convolution":
        turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
        return tf.nn.conv2d(gradient, turned, 1, "VALID")
    height, width, channels, multiplier = kernel.shape
    turned = tf.reshape(kernel[::-1, ::-1], (height, width, channels * multiplier, 1))
    result = tf.nn.depthwise_conv2d(gradient, turned, (1, 1, 1, 1), "VALID")
    if multiplier == 1:
        return result
    cells = tf.reshape(result, (-1, *result.shape[1:3], channels, multiplier))
    return tf.reduce_sum(cells, axis=-1)


def _convolution_backward(
    node: Node, kernel: Tensor, gradient: Tensor, x: Tensor, output: Tensor
) -> Tensor:
    """A convolution with the flipped kernel, its channels exchanged, over the spread gradient."""
    gradient = _in_full(gradient, output)
    height, width = x.shape[1:3]
    size = kernel.shape[:2]
    if size == (1, 1):  # convolve first: it is cheaper before the zeros are put in
        gradient = _turned_convolution(node, kernel, gradient)
        return _spread(gradient, node.operation.strides, (0, 0), (height, width))
    starts = []
    for extent, taps, stride, given, (before, _) in zip(
        (height, width),
        size,
        node.operation.strides,
        output.shape[1:3],
        node.operation.margins,
        strict=True,
    ):
        if node.operation.padding == "same":
            before = max((given - 1) * stride + taps - extent, 0) // 2
        starts.append(taps - 1 - before)
    padded = (height + size[0] - 1, width + size[1] - 1)
    spread_out = _spread(gradient, node.operation.strides, (starts[0], starts[1]), padded)
    return _turned_convolution(node, kernel, spread_out)


def _spread(
    gradient: Tensor,
    strides: tuple[int, int],
    start: tuple[int, int],
    target: tuple[int, int],
) -> Tensor:
    """Put `stride - 1` zeros between neighbours and zeros around, from `start` to `target` size."""
    height, width, channels = gradient.shape[1:]
    down, across = strides
    if strides != (1, 1):
        cells = tf.reshape(gradient, (-1, height, 1, width, 1, channels))
        cells = tf.pad(cells, [(0, 0), (0, 0), (0, down - 1), (0, 0), (0, across - 1), (0, 0)])
        gradient = tf.reshape(cells, (-1, height * down, width * across, channels))
        gradient = gradient[:, : (height - 1) * down + 1, : (width - 1) * across + 1, :]
        height, width = gradient.shape[1:3]
    top, left = start
    pads = [(top, target[0] - top - height), (left, target[1] - left - width)]
    return gradient if pads == [(0, 0), (0, 0)] else tf.pad(gradient, [(0, 0), *pads, (0, 0)])


def _in_full(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient that is constant in space, at every position."""
    if gradient.shape[1:3] == like.shape[1:3]:
        return gradient
    return gradient * tf.ones_like(like)
