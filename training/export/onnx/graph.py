"""An ONNX graph that grows operation by operation.

TensorFlow keeps maps as `[N, h, w, C]`; ONNX convolves `[N, C, h, w]`. A tensor of four axes is
therefore known under up to two names, one for each order. Convolutions define the second one, most
operations keep to it, and a transpose is put in only where an operation needs the order that is not
there yet. So a residual network has one at its input, and none between its convolutions.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from training.errors import ExportError

__all__ = [
    "CHANNELS_FIRST",
    "Graph",
    "Operation",
    "Rule",
    "Tensor",
    "onnx_type",
    "same_in_memory",
]

Tensor: TypeAlias = tf.Tensor
Operation: TypeAlias = tf.Operation
Array = npt.NDArray[Any]

CHANNELS_FIRST = (0, 3, 1, 2)
"""The axes of `[N, h, w, C]` in the order `[N, C, h, w]`."""

CHANNELS_LAST = (0, 2, 3, 1)
"""The way back."""


class Graph:
    """ONNX nodes and initializers, and what TensorFlow's tensors are called among them."""

    def __init__(self) -> None:
        """Start without nodes."""
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._outputs: list[ValueInfoProto] = []
        self._inputs: list[ValueInfoProto] = []
        # By the name of TensorFlow's tensor:
        self._same: dict[str, str] = {}  # another tensor that is the same
        self._arrays: dict[str, Array] = {}  # constants
        self._plain: dict[str, str] = {}  # names in ONNX, in TensorFlow's order of axes
        self._channels_first: dict[str, str] = {}  # and with the channels first
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    # -- TensorFlow's tensors

    def alias(self, tensor: Tensor, other: Tensor) -> None:
        """Define a tensor as the same as another."""
        self._same[tensor.name] = self._key(other)

    def hold(self, tensor: Tensor, array: Array) -> None:
        """Define a tensor as a constant; it gets into the graph when it is read."""
        self._arrays[tensor.name] = array

    def define(self, tensor: Tensor, name: str, *, channels_first: bool = False) -> None:
        """Define a tensor by the name of a node's output."""
        names = self._channels_first if channels_first else self._plain
        names[self._key(tensor)] = name

    def array(self, tensor: Tensor) -> Array:
        """A constant's values.

        Raises:
            ExportError: the tensor is not constant.
        """
        array = self.constant_or_none(tensor)
        if array is None:
            raise ExportError(
                f"The graph's {tensor.op.name!r} ({tensor.op.type}) is computed from the photo, "
                "where ONNX export needs a constant."
            )
        return array

    def constant_or_none(self, tensor: Tensor) -> Array | None:
        """A constant's values; None for another tensor."""
        return self._arrays.get(self._key(tensor))

    def has_channels_first(self, tensor: Tensor) -> bool:
        """Whether a tensor of four axes has a name with the channels first."""
        return len(tensor.shape) == 4 and self._key(tensor) in self._channels_first

    def plain(self, tensor: Tensor) -> str:
        """A tensor's name in TensorFlow's order of axes."""
        key = self._key(tensor)
        if key not in self._plain:
            if key in self._arrays:
                self._plain[key] = self.constant(self._arrays[key])
            else:
                first = self._channels_first[key]
                self._plain[key] = self.add("Transpose", first, perm=CHANNELS_LAST)
        return self._plain[key]

    def channels_first(self, tensor: Tensor) -> str:
        """A tensor's name as `[N, C, h, w]`; with fewer axes, to be broadcast to that."""
        key, missing = self._key(tensor), 4 - len(tensor.shape)
        if key not in self._channels_first:
            if missing == 4:  # a scalar
                name = self.plain(tensor)
            elif key in self._arrays:
                array = self._arrays[key]
                array = array.reshape((1,) * missing + array.shape).transpose(CHANNELS_FIRST)
                name = self.constant(array)
            else:
                name = self.plain(tensor)
                if missing:
                    name = self.add("Unsqueeze", name, self.integers(range(missing)))
                name = self.add("Transpose", name, perm=CHANNELS_FIRST)
            self._channels_first[key] = name
        return self._channels_first[key]

    def name(self, tensor: Tensor, *, channels_first: bool) -> str:
        """A tensor's name in one order or the other."""
        return self.channels_first(tensor) if channels_first else self.plain(tensor)

    def in_memory_order(self, tensor: Tensor) -> str:
        """A name whose values lie in the memory as TensorFlow's do, whatever the order of axes.

        With one channel or one position, both orders are the same there.
        """
        key = self._key(tensor)
        if key not in self._plain and key in self._channels_first and same_in_memory(tensor.shape):
            return self._channels_first[key]
        return self.plain(tensor)

    # -- ONNX

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        return self.add_many(kind, 1, *inputs, **attributes)[0]

    def add_many(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns their names."""
        name = f"{kind}_{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return names

    def constant(self, array: Array) -> str:
        """The name of an initializer with these values; equal ones share one."""
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self._constants:
            name = self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers[name] = numpy_helper.from_array(array, name)
        return self._constants[key]

    def integers(self, values: Iterable[int]) -> str:
        """The name of an initializer of int64, as ONNX has axes, shapes and pads."""
        return self.constant(np.array(list(values), np.int64))

    def input(self, tensor: Tensor) -> None:
        """Define a placeholder as an input of its name."""
        name = tensor.op.name
        self._inputs.append(_value_info(name, tensor))
        self.define(tensor, name)

    def output(self, name: str, tensor: Tensor) -> None:
        """Make a tensor an output; half precision becomes float32."""
        source = self.plain(tensor)
        dtype = tf.float32 if tensor.dtype == tf.float16 else tensor.dtype
        kind, attributes = "Identity", {}
        if dtype != tensor.dtype:
            kind, attributes = "Cast", {"to": onnx_type(dtype)}
        self._nodes.append(helper.make_node(kind, [source], [name], name=name, **attributes))
        self._outputs.append(_value_info(name, tensor, dtype))

    def proto(self, name: str) -> onnx.GraphProto:
        """The graph, without what no output depends on."""
        needed = {output.name for output in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        initializers = [self._initializers[key] for key in self._initializers if key in needed]
        return helper.make_graph(nodes[::-1], name, self._inputs, self._outputs, initializers)

    def _key(self, tensor: Tensor) -> str:
        name: str = tensor.name
        return self._same.get(name, name)


Rule = Callable[[Graph, Operation], None]
"""Adds an operation of TensorFlow's to the graph and defines its outputs."""


def same_in_memory(shape: tf.TensorShape) -> bool:
    """Whether four axes `[N, h, w, C]` lie in the memory as `[N, C, h, w]` do."""
    return len(shape) == 4 and (shape[3] == 1 or shape[1:3].as_list() == [1, 1])


def onnx_type(dtype: tf.DType) -> int:
    """ONNX's number of a type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype.as_numpy_dtype)))


def _value_info(name: str, tensor: Tensor, dtype: tf.DType | None = None) -> ValueInfoProto:
    """Name, type and shape of an input or output; its rows are `N`."""
    _rows, *shape = tensor.shape.as_list()
    return helper.make_tensor_value_info(name, onnx_type(dtype or tensor.dtype), ["N", *shape])
