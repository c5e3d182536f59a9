"""The same network with fewer operations: batch norm and zero padding merged into convolutions."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from training.graph.network import Node, readers

__all__ = ["fold_batch_norm", "fold_zero_padding"]


def fold_batch_norm(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Merge each batch norm into the convolution before it, unless another node reads that too.

    With the convolution `K * x + b` and the batch norm `s y + o`, channel by channel:

        s (K * x + b) + o  =  (s K) * x + (s b + o)

    Args:
        nodes: in the order in which they run.
    """
    folded = list(nodes)
    for norm in [node for node in folded if node.operation.kind == "batch_norm"]:
        source = next((node for node in folded if node.name == norm.inputs[0]), None)
        if source is None or readers(folded, norm.inputs[0]) != [norm]:
            continue
        if source.operation.kind not in ("convolution", "depthwise_convolution"):
            continue
        kernel = source.weights["kernel"]
        scale, offset = norm.weights["scale"], norm.weights["offset"]
        # [kh, kw, Cin, Cout] times [Cout]; a depthwise kernel [kh, kw, C, M] has C * M output
        # channels, in the order of its last two axes: times [C, M].
        depthwise = source.operation.kind == "depthwise_convolution"
        kernel_scale = scale.reshape(kernel.shape[2:]) if depthwise else scale
        weights = {
            "kernel": (kernel * kernel_scale).astype(np.float32),
            "bias": (source.weights["bias"] * scale + offset).astype(np.float32),
        }
        # The batch norm's name survives: it is what the nodes after it refer to.
        folded[folded.index(norm)] = replace(source, name=norm.name, weights=weights)
        folded.remove(source)
    return tuple(folded)


def fold_zero_padding(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Merge each zero padding into the convolution after it, unless another node reads that too.

    A margin as wide as the kernel is left alone: some windows would see nothing but zeros.

    Args:
        nodes: in the order in which they run.
    """
    folded = list(nodes)
    for padding in [node for node in folded if node.operation.kind == "zero_padding"]:
        padding_readers = readers(folded, padding.name)
        if len(padding_readers) != 1 or padding_readers[0].operation.kind != "convolution":
            continue
        convolution, margins = padding_readers[0], padding.operation.margins
        taps = convolution.weights["kernel"].shape[:2]
        narrower = all(max(sides) < extent for sides, extent in zip(margins, taps, strict=True))
        if not narrower or convolution.operation.padding != "valid":
            continue
        folded[folded.index(convolution)] = replace(
            convolution,
            inputs=padding.inputs,
            operation=replace(convolution.operation, margins=margins),
        )
        folded.remove(padding)
    return tuple(folded)
