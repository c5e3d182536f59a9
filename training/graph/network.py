"""A classifier as a list of plain operations.

This is what is exported. `keras_reader` reads a Keras model into a `Network`, `folding` rewrites it
with fewer operations, and `gradients` runs it forwards and backwards with inference ops alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from training.errors import ExportError

__all__ = ["Network", "Node", "Operation", "readers"]

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Operation:
    """An operation without its weights.

    Attributes:
        kind: `convolution`, `depthwise_convolution`, `dense`, `batch_norm`, `rescaling`, `add`,
            `multiply`, `concatenate`, `max_pooling`, `average_pooling`, `global_average_pooling`,
            `global_max_pooling`, `zero_padding`, `cropping`, `reshape` or one of
            `activations.KINDS`.
        strides: of a convolution or pooling, (down, across).
        padding: `same` or `valid`, of a convolution or pooling.
        window: of a pooling, (height, width).
        margins: of a zero padding or cropping, ((top, bottom), (left, right)); of a `valid`
            convolution, the zeros that it puts around its input first.
        shape: of a reshape's result, without the batch axis; one extent may be -1.
        slope: of `general_relu`, the slope below the threshold; of `elu`, its alpha.
        threshold: of `general_relu`.
        ceiling: of `general_relu`; None for no upper limit.
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
    """An operation in its place in the graph.

    Attributes:
        name: the Keras layer's name.
        operation: what it computes.
        inputs: names of the nodes whose outputs it reads.
        weights: by name; which names and shapes depends on the kind:

            convolution            kernel [kh, kw, Cin, Cout]   bias [Cout]
            depthwise_convolution  kernel [kh, kw, C, M]        bias [C * M]
            dense                  kernel [Fin, Fout]           bias [Fout]
            batch_norm, rescaling  scale, offset: [C] or scalar
            prelu                  alpha, broadcast to [h, w, C]
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    weights: Mapping[str, Array]


@dataclass(frozen=True)
class Network:
    """Nodes in the order in which they run, each on some path from the input to the logits.

    Attributes:
        input: the name by which nodes refer to the preprocessed image.
        nodes: the last one computes the logits.
    """

    input: str
    nodes: tuple[Node, ...]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return int(self.nodes[-1].weights["kernel"].shape[1])

    @property
    def pooled(self) -> str | None:
        """Name of the node that a GAP + Dense head pools; None for any other head."""
        body = [node for node in self.nodes if node.operation.kind != "reshape"]
        kinds = [node.operation.kind for node in body[-2:]]
        return body[-2].inputs[0] if kinds == ["global_average_pooling", "dense"] else None

    @property
    def gap_dense(self) -> bool:
        """Whether the head is global average pooling and one Dense layer, which CAM requires."""
        return self.pooled is not None

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            ExportError: the network has no such node.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise ExportError(f"The network has no layer {name!r}.")

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a node's output, or the network's input."""
        return readers(self.nodes, name)

    def with_classes(self, columns: Iterable[int]) -> "Network":
        """The same network with only some of its classes, in the order of `columns`."""
        indices = list(columns)
        head = self.nodes[-1]
        # kernel [F, classes] and bias [classes]: the class axis is the last of both
        weights = {name: array[..., indices] for name, array in head.weights.items()}
        return replace(self, nodes=(*self.nodes[:-1], replace(head, weights=weights)))


def readers(nodes: Iterable[Node], name: str) -> list[Node]:
    """Those of `nodes` that read the output called `name`."""
    return [node for node in nodes if name in node.inputs]
