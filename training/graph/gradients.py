"""Operations forwards and backwards, with inference ops alone.

A SavedModel that holds TensorFlow's own gradient ops (`ReluGrad`, `Conv2DBackpropInput`,
`BroadcastGradientArgs`) either does not load in OpenVINO or gives wrong maps there. So each
backward pass is written as forward ops: that of a ReLU is a product with a mask, that of a
convolution a convolution with the flipped, transposed kernel. The tests compare each rule with
TensorFlow's gradient.

`run` walks the graph forwards and keeps every node's output. `run_backward` walks it in reverse,
from the logits up to the layers to explain, and adds up what each node gets from its readers. For
residual blocks that end in `add`, of which `out` is to be explained (G(x) is the gradient at x):

    run                                     run_backward

    image               [N, S, S, 3]        not visited: it does not depend on `out`
      |
     ...
      |
     out                [N, h, w, C]        G(out) = G(add) + what conv sends back   the result
      |------------.
    conv           |    [N, h, w, C]        G(conv) = G(add)
      |            |
     add <---------'    [N, h, w, C]        G(add) = G(mean) / (h w)   [N, 1, 1, C]
      |
    mean                [N, C]              G(mean) = G(dense) W^T     [N, C]
      |
    dense               [N, classes]        G(dense) = seed            [N, classes]

A gradient that is the same at every position of a map, as that at `add`, is kept as `[N, 1, 1, C]`
until an operation needs it in full (`_in_full`).
"""

import functools
import math
import operator
from collections.abc import Iterable
from typing import Any, TypeAlias

import tensorflow as tf

from training.errors import ExportError
from training.graph import activations, pooling
from training.graph.network import Network, Node

__all__ = ["backward", "forward", "run", "run_backward", "shapes"]

Tensor: TypeAlias = tf.Tensor
Weights = dict[str, dict[str, Any]]
"""Tensors or variables: by node, then by their name in the node."""


def run(network: Network, weights: Weights, image: Tensor) -> dict[str, Tensor]:
    """Run a network forwards.

    Args:
        network: the operations.
        weights: of every node, of any float type.
        image: float32 `[N, h, w, 3]`, preprocessed.

    Returns:
        Every node's output, float32, by name; and `image` under the network's input name.

    Raises:
        ExportError: an operation has no forward rule; the message names the layer.
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
        layers: names of the nodes at which the gradient is wanted.

    Returns:
        By layer, the gradient at its output: float32, of the output's shape or, where it is
        constant in space, `[N, 1, 1, C]`.

    Raises:
        ExportError: a layer does not exist, or an operation has no backward rule.
    """
    targets = set(layers)
    visited = _downstream(network, targets)
    gradients = {network.nodes[-1].name: seed}
    # The nodes stand in the order in which they run. In reverse, each comes after all its readers:
    # by then its gradient is complete.
    for node in reversed(network.nodes):
        if node.name not in gradients or visited.isdisjoint(node.inputs):
            continue
        inputs = [values[name] for name in node.inputs]
        input_gradients = backward(
            node, _as_float32(weights[node.name]), gradients[node.name], inputs, values[node.name]
        )
        for name, gradient in zip(node.inputs, input_gradients, strict=True):
            if name in visited:
                partial = gradients.get(name)
                gradients[name] = gradient if partial is None else partial + gradient
    return {name: gradients[name] for name in targets}


def shapes(network: Network, input_size: int) -> dict[str, tuple[int, ...]]:
    """Each node's output shape, without the batch axis, for a square input.

    Args:
        network: the operations.
        input_size: side of the input in pixels.

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


def _downstream(network: Network, targets: set[str]) -> set[str]:
    """The targets and all nodes that depend on them: where the gradient has to pass."""
    visited = {network.node(name).name for name in targets}
    for node in network.nodes:
        if visited.intersection(node.inputs):
            visited.add(node.name)
    return visited


def _as_float32(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tf.cast(weight, tf.float32) for name, weight in weights.items()}


def forward(node: Node, weights: dict[str, Tensor], inputs: list[Tensor]) -> Tensor:
    """A node's output, float32.

    Args:
        node: the operation.
        weights: its weights, float32; see `Node` for their shapes.
        inputs: the outputs that it reads, maps `[N, h, w, C]` or features `[N, F]`.

    Raises:
        ExportError: the operation has no forward rule; the message names the layer.
    """
    operation, x = node.operation, inputs[0]
    if operation.kind in activations.KINDS:
        return activations.apply(operation, x, weights.get("alpha"))
    match operation.kind:
        case "convolution" | "depthwise_convolution":
            return _convolve(node, x, weights["kernel"]) + weights["bias"]
        case "dense":  # [N, Fin] @ [Fin, Fout]
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
        case "global_average_pooling":  # [N, h, w, C] to [N, C]
            return tf.reduce_mean(x, axis=(1, 2))
        case "global_max_pooling":  # [N, h, w, C] to [N, C]
            return tf.reduce_max(x, axis=(1, 2))
        case "reshape":
            return tf.reshape(x, (-1, *_resolved(operation.shape, x)))
    raise ExportError(f"Layer {node.name!r}: no forward rule for {operation.kind}.")


def backward(
    node: Node, weights: dict[str, Tensor], gradient: Tensor, inputs: list[Tensor], output: Tensor
) -> list[Tensor]:
    """The gradient at each input of a node.

    In the comments, x is the (first) input, y the output, and G(y) the gradient at the output.

    Args:
        node: the operation.
        weights: its weights, float32; see `Node` for their shapes.
        gradient: at its output, of the output's shape or, where constant in space, `[N, 1, 1, C]`.
        inputs: what it was run on, maps `[N, h, w, C]` or features `[N, F]`.
        output: what it gave.

    Returns:
        For each input the gradient there, of the input's shape or, where constant in space,
        `[N, 1, 1, C]`.

    Raises:
        ExportError: the operation has no backward rule; the message names the layer.
    """
    operation, x = node.operation, inputs[0]
    if operation.kind in activations.KINDS:
        # y = f(x), position by position: G(x) = G(y) f'(x), [N, h, w, C]
        alpha = weights.get("alpha")
        return [gradient * activations.derivative(operation, x, output, alpha)]
    match operation.kind:
        case "convolution" | "depthwise_convolution":
            return [_convolution_backward(node, weights["kernel"], gradient, x, output)]
        case "dense":
            # y = x W + b: G(x) = G(y) W^T, [N, Fout] @ [Fout, Fin]
            return [tf.linalg.matmul(gradient, weights["kernel"], transpose_b=True)]
        case "batch_norm" | "rescaling":
            # y = s x + o: G(x) = s G(y); s is [C] or scalar, so [N, 1, 1, C] stays as it is
            return [gradient * weights["scale"]]
        case "add":
            # y = x1 + x2 + ...: G(xi) = G(y), summed over axes along which xi was broadcast
            return [_sum_to(gradient, term, output) for term in inputs]
        case "multiply":
            return _multiply_backward(gradient, inputs, output)
        case "concatenate":
            # [N, h, w, C1 + C2 + ...] cut into [N, h, w, C1], [N, h, w, C2], ...
            return list(tf.split(gradient, [part.shape[-1] for part in inputs], axis=-1))
        case "zero_padding":
            # [N, top + h + bottom, left + w + right, C] cropped to [N, h, w, C]
            (top, _), (left, _) = operation.margins
            height, width = x.shape[1:3]
            full = _in_full(gradient, output)
            return [full[:, top : top + height, left : left + width, :]]
        case "cropping":
            # What was cropped away has no influence: zeros around, back to [N, h, w, C].
            return [tf.pad(_in_full(gradient, output), [(0, 0), *operation.margins, (0, 0)])]
        case "max_pooling" | "average_pooling":
            return [pooling.backward(operation, _in_full(gradient, output), x, output)]
        case "global_average_pooling":
            # y = sum_ij x_ij / (h w): G(x) = G(y) / (h w) everywhere, [N, C] to [N, 1, 1, C]
            positions = x.shape[1] * x.shape[2]
            return [tf.reshape(gradient / float(positions), (-1, 1, 1, x.shape[-1]))]
        case "global_max_pooling":
            # All to the maximum; equal maxima share it, as in TensorFlow.
            is_maximum = tf.cast(x >= output[:, None, None, :], tf.float32)  # [N, h, w, C]
            count = tf.reduce_sum(is_maximum, axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
            return [is_maximum * (gradient[:, None, None, :] / count)]
        case "reshape":
            return [tf.reshape(_in_full(gradient, output), (-1, *x.shape[1:]))]
    raise ExportError(f"Layer {node.name!r}: no backward rule for {operation.kind}.")


def _resolved(shape: tuple[int, ...], x: Tensor) -> list[int]:
    """A reshape's target with its -1 replaced: in the graph, -1 is kept for the batch axis."""
    known_size = math.prod(extent for extent in shape if extent != -1)
    return [math.prod(x.shape[1:]) // known_size if extent == -1 else extent for extent in shape]


def _multiply_backward(gradient: Tensor, inputs: list[Tensor], output: Tensor) -> list[Tensor]:
    """For `y = x1 x2 ...`, `G(xi) = G(y) * product of the other factors`.

    A factor that was broadcast, such as the gate `[N, 1, 1, C]` of a squeeze-and-excitation block,
    gets the sum over the axes along which it was.
    """
    input_gradients = []
    for index, factor in enumerate(inputs):
        other_factors = functools.reduce(operator.mul, inputs[:index] + inputs[index + 1 :])
        input_gradients.append(_sum_to(gradient * other_factors, factor, output))
    return input_gradients


def _sum_to(gradient: Tensor, operand: Tensor, output: Tensor) -> Tensor:
    """The gradient at an operand that was broadcast to the output's shape.

    The operand was read once for each position along the axes where its extent is 1 and the
    output's is not: the gradients of all these readings add up. Without such an axis, the gradient
    is passed on as it is.
    """
    axes = [
        axis
        for axis in range(1, len(output.shape))
        if operand.shape[axis] == 1 and output.shape[axis] != 1
    ]
    if not axes:
        return gradient
    return tf.reduce_sum(_in_full(gradient, output), axis=axes, keepdims=True)


def _convolve(node: Node, x: Tensor, kernel: Tensor) -> Tensor:
    """`[N, h, w, Cin]` to `[N, h', w', Cout]`, without the bias."""
    operation = node.operation
    padding: Any = operation.padding.upper()
    if operation.kind == "depthwise_convolution":
        return tf.nn.depthwise_conv2d(x, kernel, (1, *operation.strides, 1), padding)
    if padding == "VALID" and any(map(any, operation.margins)):
        padding = [(0, 0), *operation.margins, (0, 0)]
    return tf.nn.conv2d(x, kernel, operation.strides, padding)


def _convolution_backward(
    node: Node, kernel: Tensor, gradient: Tensor, x: Tensor, output: Tensor
) -> Tensor:
    """The gradient at a convolution's input, `[N, h, w, Cin]`.

    Along one axis, with stride s, k taps and p zeros before the input,

        y[i] = sum_t K[t] x[s i + t - p]     so     G(x)[j] = sum_t K[t] G(y)[i]
                                                    over all i, t with s i + t - p = j

    which is a `valid` convolution, with stride 1, of the flipped kernel over the gradient after
    s - 1 zeros are put between its neighbours and zeros around them: k - 1 - p before. For s = 2,
    k = 3, p = 1 and an input of 5:

        G(y)          a       b       c
        spread    0   a   0   b   0   c   0          k - 1 - p = 1 zero at the start,
                  '---+---'                          5 + k - 1 = 7 in all
        G(x)          0   1   2   3   4
                      K1a K2a+K0b  K1b  ...          (K2, K1, K0) slides over `spread`

    Args:
        node: the convolution.
        kernel: `[kh, kw, Cin, Cout]`; of a depthwise convolution `[kh, kw, C, M]`.
        gradient: at the output, `[N, h', w', Cout]` or `[N, 1, 1, Cout]`.
        x: the input, `[N, h, w, Cin]`.
        output: `[N, h', w', Cout]`.
    """
    gradient = _in_full(gradient, output)
    height, width = x.shape[1:3]
    taps = kernel.shape[:2]
    if taps == (1, 1):  # convolve first: it is cheaper before the zeros are put in
        gradient = _flipped_convolution(node, kernel, gradient)
        return _spread(gradient, node.operation.strides, (0, 0), (height, width))
    starts = [
        axis_taps - 1 - _zeros_before(node, axis, axis_taps, x, output)
        for axis, axis_taps in enumerate(taps)
    ]
    size = (height + taps[0] - 1, width + taps[1] - 1)
    spread = _spread(gradient, node.operation.strides, (starts[0], starts[1]), size)
    return _flipped_convolution(node, kernel, spread)


def _zeros_before(node: Node, axis: int, taps: int, x: Tensor, output: Tensor) -> int:
    """Zeros that the convolution puts above (axis 0) or left of (axis 1) its input."""
    operation = node.operation
    if operation.padding == "same":
        return pooling.same_padding_before(
            x.shape[1 + axis], output.shape[1 + axis], taps, operation.strides[axis]
        )
    return operation.margins[axis][0]


def _flipped_convolution(node: Node, kernel: Tensor, gradient: Tensor) -> Tensor:
    """Convolve with the flipped kernel, from output channels to input channels, `valid`.

    By slices: OpenVINO does not convert a `tf.reverse` over two axes.
    """
    if node.operation.kind == "convolution":
        flipped = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))  # [kh, kw, Cout, Cin]
        return tf.nn.conv2d(gradient, flipped, 1, "VALID")
    # Depthwise: each of the C input channels made M output channels. They are convolved back one
    # by one, [N, H, W, C * M], and the M that belong to an input channel are summed.
    height, width, channels, multiplier = kernel.shape
    flipped = tf.reshape(kernel[::-1, ::-1], (height, width, channels * multiplier, 1))
    terms = tf.nn.depthwise_conv2d(gradient, flipped, (1, 1, 1, 1), "VALID")
    if multiplier == 1:
        return terms
    terms = tf.reshape(terms, (-1, *terms.shape[1:3], channels, multiplier))
    return tf.reduce_sum(terms, axis=-1)


def _spread(
    gradient: Tensor,
    strides: tuple[int, int],
    start: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """Put `stride - 1` zeros between neighbours, and zeros around them.

    Args:
        gradient: `[N, h, w, C]`.
        strides: (down, across).
        start: row and column of the first value in the result.
        size: height and width of the result, `[N, *size, C]`.
    """
    height, width, channels = gradient.shape[1:]
    down, across = strides
    if strides != (1, 1):
        # By reshape and pad: each value becomes a cell of down x across with the value first.
        #   a b        a 0 b 0
        #   c d   to   0 0 0 0     and the zeros after the last value are cut off
        #              c 0 d 0
        #              0 0 0 0
        cells = tf.reshape(gradient, (-1, height, 1, width, 1, channels))
        cells = tf.pad(cells, [(0, 0), (0, 0), (0, down - 1), (0, 0), (0, across - 1), (0, 0)])
        gradient = tf.reshape(cells, (-1, height * down, width * across, channels))
        gradient = gradient[:, : (height - 1) * down + 1, : (width - 1) * across + 1, :]
        height, width = gradient.shape[1:3]
    top, left = start
    pads = [(top, size[0] - top - height), (left, size[1] - left - width)]
    return gradient if pads == [(0, 0), (0, 0)] else tf.pad(gradient, [(0, 0), *pads, (0, 0)])


def _in_full(gradient: Tensor, output: Tensor) -> Tensor:
    """A gradient that is constant in space, `[N, 1, 1, C]`, at every position of the output."""
    if gradient.shape[1:3] == output.shape[1:3]:
        return gradient
    return gradient * tf.ones_like(output)
