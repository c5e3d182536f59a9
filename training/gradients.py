"""Operations forwards and backwards, with inference ops alone.

A SavedModel that holds TensorFlow's own gradient ops (`ReluGrad`, `Conv2DBackpropInput`,
`BroadcastGradientArgs`) either does not load in OpenVINO or gives wrong maps there. So each
backward pass is written as forward ops: ReLU's as a product with a mask, a residual sum's as the
gradient itself, a convolution's as a convolution with the flipped, transposed kernel. The tests
hold each rule to TensorFlow's own gradient.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import tensorflow as tf

from training.errors import ExportError
from training.network import Network, Node

__all__ = ["backward", "forward", "run", "run_backward"]

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
    """A node's output, float32."""
    operation, x = node.operation, inputs[0]
    match operation.kind:
        case "convolution":
            y = tf.nn.conv2d(x, weights["kernel"], operation.strides, operation.padding.upper())
            return y + weights["bias"]
        case "dense":
            return tf.linalg.matmul(x, weights["kernel"]) + weights["bias"]
        case "batch_norm":
            return x * weights["scale"] + weights["offset"]
        case "relu":
            return tf.nn.relu(x)
        case "add":
            return tf.add_n(inputs) if len(inputs) > 2 else inputs[0] + inputs[1]
        case "zero_padding":
            return tf.pad(x, [(0, 0), *operation.margins, (0, 0)])
        case "max_pooling":
            return tf.nn.max_pool2d(
                x, operation.window, operation.strides, operation.padding.upper()
            )
        case "global_average_pooling":
            return tf.reduce_mean(x, axis=(1, 2))
        case "identity":
            return x
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
    match operation.kind:
        case "convolution":
            return [_convolution_backward(node, weights["kernel"], gradient, x, output)]
        case "dense":
            return [tf.linalg.matmul(gradient, weights["kernel"], transpose_b=True)]
        case "batch_norm":
            return [gradient * weights["scale"]]
        case "relu":
            return [gradient * tf.cast(output > 0, tf.float32)]
        case "add":
            return [gradient] * len(inputs)
        case "zero_padding":
            (top, _), (left, _) = operation.margins
            height, width = x.shape[1:3]
            full = _in_full(gradient, output)
            return [full[:, top : top + height, left : left + width, :]]
        case "global_average_pooling":
            positions = x.shape[1] * x.shape[2]
            return [gradient[:, None, None, :] / float(positions)]
        case "identity":
            return [gradient]
    raise ExportError(f"Layer {node.name!r}: no backward rule for {operation.kind}.")


def _convolution_backward(
    node: Node, kernel: Tensor, gradient: Tensor, x: Tensor, output: Tensor
) -> Tensor:
    """A convolution with the flipped kernel, its channels exchanged, over the spread gradient."""
    gradient = _in_full(gradient, output)
    turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    height, width = x.shape[1:3]
    size = kernel.shape[:2]
    if size == (1, 1):  # convolve first: it is cheaper before the zeros are put in
        gradient = tf.nn.conv2d(gradient, turned, 1, "VALID")
        return _spread(gradient, node.operation.strides, ((0, 0), (0, 0)), (height, width))
    margins = []
    for extent, taps, stride, given in zip(
        (height, width), size, node.operation.strides, output.shape[1:3], strict=True
    ):
        before = 0
        if node.operation.padding == "same":
            before = max((given - 1) * stride + taps - extent, 0) // 2
        spread = (given - 1) * stride + 1
        margins.append((taps - 1 - before, extent - spread + before))
    padded = tuple(extent + taps - 1 for extent, taps in zip((height, width), size, strict=True))
    spread_out = _spread(gradient, node.operation.strides, tuple(margins), padded)
    return tf.nn.conv2d(spread_out, turned, 1, "VALID")


def _spread(
    gradient: Tensor,
    strides: tuple[int, int],
    margins: tuple[tuple[int, int], ...],
    target: tuple[int, ...],
) -> Tensor:
    """Put `stride - 1` zeros between neighbours and zeros around, to `target` height and width."""
    height, width, channels = gradient.shape[1:]
    down, across = strides
    if strides != (1, 1):
        cells = tf.reshape(gradient, (-1, height, 1, width, 1, channels))
        cells = tf.pad(cells, [(0, 0), (0, 0), (0, down - 1), (0, 0), (0, across - 1), (0, 0)])
        gradient = tf.reshape(cells, (-1, height * down, width * across, channels))
        gradient = gradient[:, : (height - 1) * down + 1, : (width - 1) * across + 1, :]
        height, width = gradient.shape[1:3]
    top, left = margins[0][0], margins[1][0]
    pads = [(top, target[0] - top - height), (left, target[1] - left - width)]
    return gradient if pads == [(0, 0), (0, 0)] else tf.pad(gradient, [(0, 0), *pads, (0, 0)])


def _in_full(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient that is constant in space, at every position."""
    if gradient.shape[1:3] == like.shape[1:3]:
        return gradient
    return gradient * tf.ones_like(like)
