"""A classifier as a list of plain operations.

This is what is exported: `gradients` knows how to run each operation forwards and backwards with
inference ops alone, and `keras_reader` makes such a list of a Keras model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from training.errors import ExportError

__all__ = ["Network", "Node", "Operation", "fold_batch_norm", "fold_zero_padding"]

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Operation:
    """One operation, without its weights.

    Attributes:
        kind: `convolution`, `depthwise_convolution`, `dense`, `batch_norm`, `rescaling`, `add`,
            `multiply`, `concatenate`, `max_pooling`, `average_pooling`, `global_average_pooling`,
            `global_max_pooling`, `zero_padding`, `cropping`, `reshape` or one of
            `activations.KINDS`.
        strides: of a convolution or pooling.
        padding: `same` or `valid`, of a convolution or pooling.
        window: of a pooling.
        margins: of a zero padding or cropping, ((top, bottom), (left, right)); of a `valid`
            convolution, the zeros that it puts around its input first.
        shape: of a reshape's result, without the batch; one extent may be -1.
        slope: left of the threshold, of `general_relu`; the depth of `elu`.
        threshold: of `general_relu`.
        ceiling: of `general_relu`.
    """

    kind: str
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    window: tuple[int, int] = (1, 1)
    margins: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    shape: tuple[int, ...] = ()
    slope: float = 0.0
    threshold: float = 0.0
    ceiling: float | None = None


@dataclass(frozen=True)
class Node:
    """An operation in its place: its name is the Keras layer's, its inputs are nodes' names."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    weights: Mapping[str, Array]


@dataclass(frozen=True)
class Network:
    """Nodes in the order they run, each on some path from the input to the logits.

    Attributes:
        input: the name under which the first nodes ask for the preprocessed image.
        nodes: the last one gives the logits.
    """

    input: str
    nodes: tuple[Node, ...]

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a node's output, or the network's input."""
        return [node for node in self.nodes if name in node.inputs]

    @property
    def classes(self) -> int:
        """Units of the last Dense layer."""
        return int(self.nodes[-1].weights["kernel"].shape[1])

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            ExportError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise ExportError(f"The network has no layer {name!r}.")

    @property
    def pooled(self) -> str | None:
        """What a head of global average pooling and one Dense layer pools; None for other heads."""
        body = [node for node in self.nodes if node.operation.kind != "reshape"]
        kinds = [node.operation.kind for node in body[-2:]]
        return body[-2].inputs[0] if kinds == ["global_average_pooling", "dense"] else None

    @property
    def gap_dense(self) -> bool:
        """Whether the head is global average pooling and one Dense layer, as CAM needs."""
        return self.pooled is not None

    def with_classes(self, columns: Iterable[int]) -> "Network":
        """The same network with those classes alone, in that order."""
        chosen = list(columns)
        head = self.nodes[-1]
        weights = {name: array[..., chosen] for name, array in head.weights.items()}
        return replace(self, nodes=(*self.nodes[:-1], replace(head, weights=weights)))


def fold_batch_norm(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Merge each batch norm into the convolution before it, if nothing else reads that one.

    Args:
        nodes: in the order they run.
    """
    folded = list(nodes)
    for norm in [node for node in folded if node.operation.kind == "batch_norm"]:
        source = next((node for node in folded if node.name == norm.inputs[0]), None)
        readers = [node for node in folded if norm.inputs[0] in node.inputs]
        if source is None or readers != [norm]:
            continue
        if source.operation.kind not in ("convolution", "depthwise_convolution"):
            continue
        kernel = source.weights["kernel"]
        scale, offset = norm.weights["scale"], norm.weights["offset"]
        if source.operation.kind == "depthwise_convolution":
            kernel = kernel * scale.reshape(kernel.shape[2:])
        else:
            kernel = kernel * scale
        weights = {
            "kernel": kernel.astype(np.float32),
            "bias": (source.weights["bias"] * scale + offset).astype(np.float32),
        }
        folded[folded.index(norm)] = replace(source, name=norm.name, weights=weights)
        folded.remove(source)
    return tuple(folded)


def fold_zero_padding(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Merge each zero padding into the convolution after it, if nothing else reads the padding.

    Margins as wide as the kernel stay: some of its positions would then see zeros alone.

    Args:
        nodes: in the order they run.
    """
    folded = list(nodes)
    for padding in [node for node in folded if node.operation.kind == "zero_padding"]:
        readers = [node for node in folded if padding.name in node.inputs]
        if len(readers) != 1 or readers[0].operation.kind != "convolution":
            continue
        convolution, margins = readers[0], padding.operation.margins
        fits = all(
            max(sides) < taps
            for sides, taps in zip(margins, convolution.weights["kernel"].shape[:2], strict=True)
        )
        if not fits or convolution.operation.padding != "valid":
            continue
        folded[folded.index(convolution)] = replace(
            convolution,
            inputs=padding.inputs,
            operation=replace(convolution.operation, margins=margins),
        )
        folded.remove(padding)
    return tuple(folded)
