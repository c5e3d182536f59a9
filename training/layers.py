"""Which of a network's layers have maps that say something about the whole answer."""

from training import activations
from training.errors import ExportError
from training.gradients import shapes
from training.network import Network, Node

__all__ = ["MOST", "exposed"]

MOST = 6
"""Layers that are exposed at most, from the last one backwards."""

_CONVOLUTIONS = ("convolution", "depthwise_convolution")
_PASSING = ("max_pooling", "average_pooling", "zero_padding", "cropping")
_SCALING = ("batch_norm", "rescaling")


def exposed(network: Network, input_size: int) -> tuple[str, ...]:
    """The last layers, six at most, whose maps are worth exporting; first to last.

    A layer qualifies when every path from the image to the logits passes through it, so that its
    maps are never those of one branch of a residual block alone; when it has a map of more than one
    position; and when it ends a stage of work: it is a nonlinearity, a residual sum that none
    follows, or a concatenation of such. What global average pooling reads in front of the one
    Dense layer always qualifies. In a network with no such layer, its convolutions stand in.

    Args:
        network: any.
        input_size: pixels of the square input.

    Raises:
        ExportError: the network has no such layer, pools a map of one position, or does not take
            that size.
    """
    sizes = shapes(network, input_size)
    passed = [node for node in _on_every_path(network) if _has_map(sizes[node.name])]
    names = [node.name for node in passed if _ends_a_stage(network, node)]
    if not names:
        names = [node.name for node in passed if node.operation.kind in _CONVOLUTIONS]
    pooled = network.pooled
    if pooled is not None and pooled not in (network.input, *names):
        if not _has_map(sizes[pooled]):
            raise ExportError(
                f"At {input_size} x {input_size} pixels nothing is left to explain: the head pools "
                f"{pooled!r}, a map of one position."
            )
        names.append(pooled)
    if not names:
        raise ExportError(
            "The network has no layer with a map through which every path to the logits passes."
        )
    return tuple(names[-MOST:])


def _has_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] * shape[1] > 1


def _on_every_path(network: Network) -> list[Node]:
    """The nodes over which no connection leaps, in the order that the nodes run in."""
    place = {network.input: -1} | {node.name: i for i, node in enumerate(network.nodes)}
    reach = dict.fromkeys(place, -1)  # the place of a node's last reader
    for node in network.nodes:
        for name in node.inputs:
            reach[name] = max(reach[name], place[node.name])
    kept, farthest = [], reach[network.input]
    for node in network.nodes:
        if farthest <= place[node.name]:
            kept.append(node)
        farthest = max(farthest, reach[node.name])
    return kept


def _ends_a_stage(network: Network, node: Node) -> bool:
    match node.operation.kind:
        case kind if kind in activations.KINDS:
            return True
        case "add":
            return not _activated_next(network, node)
        case "concatenate":
            return all(_after_nonlinearity(network, name) for name in node.inputs)
    return False


def _activated_next(network: Network, node: Node) -> bool:
    """Whether the one reader of a node is a nonlinearity, batch norm aside."""
    readers = [other for other in network.nodes if node.name in other.inputs]
    if len(readers) != 1:
        return False
    if readers[0].operation.kind in _SCALING:
        return _activated_next(network, readers[0])
    return readers[0].operation.kind in activations.KINDS


def _after_nonlinearity(network: Network, name: str) -> bool:
    if name == network.input:
        return False
    node = network.node(name)
    if node.operation.kind in _PASSING:
        return _after_nonlinearity(network, node.inputs[0])
    return _ends_a_stage(network, node)
