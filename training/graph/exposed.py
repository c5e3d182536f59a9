"""Which of a network's layers are exposed: those whose maps bear on the whole prediction."""

from training.errors import ExportError
from training.graph import activations
from training.graph.gradients import shapes
from training.graph.network import Network, Node

__all__ = ["MAX_LAYERS", "exposed_layers"]

MAX_LAYERS = 6
"""The most layers that are exposed: the last ones."""

_CONVOLUTIONS = ("convolution", "depthwise_convolution")
_SHAPING = ("max_pooling", "average_pooling", "zero_padding", "cropping")
_SCALING = ("batch_norm", "rescaling")


def exposed_layers(network: Network, input_size: int) -> tuple[str, ...]:
    """Names of the layers whose maps are worth exporting, first to last; the last six at most.

    A layer qualifies when all of these hold:

    - Every path from the image to the logits passes through it. Its maps are never those of one
      branch of a residual block alone.
    - Its map has more than one position.
    - It ends a stage of work: it is an activation function, a residual sum without one behind it,
      or a concatenation of such layers. An activation function inside an inverted residual block
      does not: it ends no block.

    The layer that a GAP + Dense head pools always qualifies. In a network where no layer does, its
    convolutions stand in.

    Args:
        network: any.
        input_size: side of the square input in pixels.

    Raises:
        ExportError: the network has no such layer, pools a map of one position, or does not take
            that size.
    """
    sizes = shapes(network, input_size)
    candidates = [node for node in _on_every_path(network) if _has_map(sizes[node.name])]
    names = [node.name for node in candidates if _ends_a_stage(network, node)]
    if not names:
        names = [node.name for node in candidates if node.operation.kind in _CONVOLUTIONS]
    pooled = network.pooled
    if pooled is not None and pooled not in (network.input, *names):
        if not _has_map(sizes[pooled]):
            raise ExportError(
                f"At {input_size} x {input_size} pixels there is nothing to explain: the head "
                f"pools {pooled!r}, whose map has one position."
            )
        names.append(pooled)
    if not names:
        raise ExportError(
            "The network has no layer with a map that every path to the logits passes through."
        )
    return tuple(names[-MAX_LAYERS:])


def _has_map(shape: tuple[int, ...]) -> bool:
    """Whether an output is a map `[h, w, C]` of more than one position."""
    return len(shape) == 3 and shape[0] * shape[1] > 1


def _on_every_path(network: Network) -> list[Node]:
    """The nodes that no connection skips, in the order in which the nodes run.

    With the nodes numbered in that order, node i lies on every path if no node before i is read by
    one after i. In a residual block, the shortcut from `relu` to `add` skips both convolutions:

        number           3      4       5      6
                       relu -> conv -> conv -> add
                         '----------------------^      relu's last reader is 6 > 4, 5
    """
    position = {network.input: -1} | {node.name: i for i, node in enumerate(network.nodes)}
    last_reader = dict.fromkeys(position, -1)
    for node in network.nodes:
        for name in node.inputs:
            last_reader[name] = max(last_reader[name], position[node.name])
    on_every_path = []
    farthest = last_reader[network.input]  # the last reader of any node before the current one
    for node in network.nodes:
        if farthest <= position[node.name]:
            on_every_path.append(node)
        farthest = max(farthest, last_reader[node.name])
    return on_every_path


def _ends_a_stage(network: Network, node: Node) -> bool:
    match node.operation.kind:
        case kind if kind in activations.KINDS:
            return not _in_inverted_residual(network, node)
        case "add":
            return not _activated_next(network, node)
        case "concatenate":
            return all(_is_activated(network, name) for name in node.inputs)
    return False


def _in_inverted_residual(network: Network, node: Node) -> bool:
    """Whether an activation function lies between the convolutions of an inverted residual block.

    The block expands its channels, filters each on its own, and projects them without an activation
    function behind. Where the input has another shape, no shortcut skips it:

        convolution -> f -> depthwise convolution -> f -> convolution -> another block

    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
    """
    following = _next_on_path(network, node)
    if following is None:
        return False
    if following.operation.kind == "depthwise_convolution":
        filtered = _next_on_path(network, following)
        return filtered is not None and _is_projected(network, filtered)
    return _is_projected(network, node)


def _is_projected(network: Network, node: Node) -> bool:
    """Whether a depthwise convolution's activated output goes to a convolution without one."""
    if node.operation.kind not in activations.KINDS:
        return False
    source = node.inputs[0]
    while source != network.input and network.node(source).operation.kind in _SCALING:
        source = network.node(source).inputs[0]
    if source == network.input:
        return False
    projection = _next_on_path(network, node)
    return (
        network.node(source).operation.kind == "depthwise_convolution"
        and projection is not None
        and projection.operation.kind == "convolution"
        and not _activated_next(network, projection)
    )


def _next_on_path(network: Network, node: Node) -> Node | None:
    """The node's only reader; batch norm, padding and a squeeze-and-excitation gate are passed."""
    node_readers = network.readers(node.name)
    gates = [reader for reader in node_readers if reader.operation.kind == "multiply"]
    if len(node_readers) != 1 and not gates:
        return None
    following = (gates or node_readers)[0]
    if following.operation.kind in ("multiply", "zero_padding", *_SCALING):
        return _next_on_path(network, following)
    return following


def _activated_next(network: Network, node: Node) -> bool:
    """Whether the node's only reader, batch norm aside, is an activation function."""
    node_readers = network.readers(node.name)
    if len(node_readers) != 1:
        return False
    if node_readers[0].operation.kind in _SCALING:
        return _activated_next(network, node_readers[0])
    return node_readers[0].operation.kind in activations.KINDS


def _is_activated(network: Network, name: str) -> bool:
    """Whether a node's output, pooling and padding aside, is that of the end of a stage."""
    if name == network.input:
        return False
    node = network.node(name)
    if node.operation.kind in _SHAPING:
        return _is_activated(network, node.inputs[0])
    return _ends_a_stage(network, node)
