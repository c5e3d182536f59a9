"""A frozen TensorFlow graph in ONNX, operation by operation.

A rule takes the ONNX graph and an operation of TensorFlow's, and defines the operation's outputs.
There are rules for what an exported graph holds: the inference ops of `training.graph`.
"""

from collections.abc import Iterable, Mapping

from training.errors import ExportError
from training.export.onnx import axes, elementwise, products
from training.export.onnx.graph import Graph, Operation, Tensor

__all__ = ["translated"]

_RULES = elementwise.RULES | axes.RULES | products.RULES


def translated(inputs: Iterable[Tensor], outputs: Mapping[str, Tensor]) -> Graph:
    """A frozen TensorFlow graph in ONNX.

    Args:
        inputs: placeholders with the number of rows in front; they keep their names.
        outputs: by their names in ONNX, likewise.

    Raises:
        ExportError: an operation has no rule; the message names it.
    """
    graph = Graph()
    for tensor in inputs:
        graph.input(tensor)
    operations = _needed(outputs.values())
    unsupported = sorted({operation.type for operation in operations} - set(_RULES))
    if unsupported:
        raise ExportError(
            f"ONNX export does not support TensorFlow's {', '.join(unsupported)}, which the graph "
            "holds."
        )
    for operation in operations:
        _RULES[operation.type](graph, operation)
    for name, tensor in outputs.items():
        graph.output(name, tensor)
    return graph


def _needed(outputs: Iterable[Tensor]) -> list[Operation]:
    """What outputs depend on, but for placeholders, in the order in which it runs."""
    waiting = [tensor.op for tensor in outputs]
    source = waiting[0].graph
    needed: set[str] = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in needed and operation.type != "Placeholder":
            needed.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return [operation for operation in source.get_operations() if operation.name in needed]
