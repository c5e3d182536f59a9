"""Tensors in a PyTorch file of the format before version 1.6, without PyTorch.

Such a file is a row of pickles, then the numbers:

    magic number | protocol 1001 | system | tensors by name | keys of the storages
    for each key: count (int64), then as many values

A tensor is a view of a storage: where it starts, its sizes, and its strides, in elements. A tensor
that is not contiguous is stored as it lay in memory.

Nothing is unpickled. `pickletools` takes a pickle apart, and the few opcodes and globals that such
a file needs are carried out here; any other is refused.
"""

import math
import os
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from training.errors import WeightsError

__all__ = ["printable", "read"]

Array = npt.NDArray[Any]
_T = TypeVar("_T")

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_MOST_AXES = 32
_MOST_VALUES = 2**40
"""More than any file has; and times eight bytes, still a number of 64 bits."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "IntStorage": np.dtype("<i4"),
    "LongStorage": np.dtype("<i8"),
}


def read(path: Path) -> dict[str, Array]:
    """Read the tensors of a file that `torch.save(module.state_dict(), ...)` wrote.

    Args:
        path: a file of the format before PyTorch 1.6.

    Returns:
        Each tensor by its name: contiguous, of the shape and type that it had.

    Raises:
        WeightsError: the file is missing, damaged, of another format, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    except _FormatError as error:
        raise WeightsError(
            f"{path} holds no tensors in PyTorch's format before version 1.6: {error}."
        ) from error


def printable(text: str) -> str:
    """A name out of a file as it may stand in a message: its start, with controls escaped."""
    return ascii(text[:80])[1:-1]


class _FormatError(Exception):
    """What is wrong with a file."""


@dataclass(frozen=True)
class _Global:
    """A class or function that a pickle names; it is never imported."""

    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    """A row of numbers that tensors are views of."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are counted in elements."""

    storage: _Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def _read(file: BinaryIO) -> dict[str, Array]:
    start = file.read(2)
    if start == b"PK":
        raise _FormatError("it is a zip file, as later versions write")
    file.seek(0)
    if _unpickled(file) != _MAGIC or _unpickled(file) != _PROTOCOL:
        raise _FormatError("it does not start like one")
    system = _unpickled(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _FormatError("its numbers are not little-endian")
    tensors = _unpickled(file)
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in tensors.items()
    ):
        raise _FormatError("it holds something else than tensors by name")
    storages = {tensor.storage for tensor in tensors.values()}
    by_key = {storage.key: storage for storage in storages}
    keys = _unpickled(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _FormatError("a pickle in it is damaged")
    if set(keys) != by_key.keys() or not len(keys) == len(by_key) == len(storages):
        raise _FormatError("its list of storages does not fit its tensors")
    # More elements than are stored would repeat some, and take any amount of memory.
    if sum(math.prod(each.sizes) for each in tensors.values()) > sum(
        each.count for each in storages
    ):
        raise _FormatError("its tensors are larger than its storages")
    values = {key: _values(file, by_key[key]) for key in keys}
    return {name: _view(name, tensor, values) for name, tensor in tensors.items()}


def _values(file: BinaryIO, storage: _Storage) -> Array:
    """The next storage's numbers, `[count]`."""
    count = int.from_bytes(file.read(8), "little", signed=True)
    if count != storage.count:
        raise _FormatError(
            f"storage {printable(storage.key)} has {count} values instead of {storage.count}"
        )
    size = count * storage.dtype.itemsize
    if size > os.fstat(file.fileno()).st_size - file.tell():
        raise _FormatError("it ends early")
    return np.frombuffer(file.read(size), storage.dtype)


def _view(name: str, tensor: _Tensor, values: Mapping[str, Array]) -> Array:
    """A tensor as an array: element `(i, j, ...)` is `values[offset + i * si + j * sj + ...]`."""
    storage = values[tensor.storage.key]
    sizes, strides = tensor.sizes, tensor.strides
    if 0 not in sizes:
        last = tensor.offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        if last >= len(storage) or math.prod(sizes) > len(storage):
            raise _FormatError(f"{printable(name)} reaches beyond its storage")
        storage = storage[tensor.offset :]
    in_bytes = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage, sizes, in_bytes, writeable=False).copy()


def _unpickled(file: BinaryIO) -> Any:
    """The next pickle's value."""
    machine = _Machine()
    try:
        for opcode, argument, _position in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    # What `pickletools` raises on bytes that are no pickle or name impossible lengths, and this
    # stack on a pickle that is damaged.
    except (LookupError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise _FormatError("a pickle in it is damaged") from error
    raise _FormatError("it ends early")


_MARK = object()

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
    "NEWFALSE": lambda: False,
    "NEWTRUE": lambda: True,
    "NONE": lambda: None,
}
_LITERALS = ("BININT", "BININT1", "BININT2", "BINUNICODE", "LONG1")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The pickle machine's stack and memo, for the opcodes of protocol 2 that files need."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Take the value on top of the stack."""
        return self._stack.pop()

    def run(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode.

        Raises:
            _FormatError: it is not one of those that such a file needs.
        """
        stack = self._stack
        match opcode:
            case "PROTO":
                pass
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode]())
            case _ if opcode in _LITERALS:
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "TUPLE":
                stack.append(tuple(self._popped_to_mark()))
            case _ if opcode in _TUPLES:
                stack[-_TUPLES[opcode] :] = [tuple(stack[-_TUPLES[opcode] :])]
            case "APPEND":
                item = self.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = self._popped_to_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _of(dict, stack[-1])[_of(str, key)] = value
            case "SETITEMS":
                items = self._popped_to_mark()
                keys = [_of(str, key) for key in items[::2]]
                _of(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_Global(*argument.split(" ")))
            case "BINPERSID":
                stack.append(_storage(*self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                stack.append(_called(function, arguments))
            case "BUILD":  # attributes of an OrderedDict: the modules' versions, not needed
                self.pop()
                _of(dict, stack[-1])
            case _:
                raise _FormatError(f"its pickle does more than hold tensors (opcode {opcode})")

    def _popped_to_mark(self) -> list[Any]:
        items = []
        while (item := self.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _of(kind: type[_T], value: Any) -> _T:
    """The value, which has to be of that type.

    A dictionary's keys are strings: nested tuples that a pickle repeats take an age to hash.
    """
    if not isinstance(value, kind):
        raise TypeError(kind)
    return value


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    """The result of one of the two functions that such a file calls."""
    if function == _Global("collections", "OrderedDict") and arguments == ():
        return {}
    if function != _Global("torch._utils", "_rebuild_tensor_v2"):
        raise _FormatError(f"its pickle does more than hold tensors ({_described(function)})")
    storage, offset, sizes, strides = arguments[:4]
    counts = (offset, *sizes, *strides)
    if len(sizes) != len(strides) or len(sizes) > _MOST_AXES:
        raise ValueError("no sizes and strides")
    if not all(type(n) is int and 0 <= n <= _MOST_VALUES for n in counts):
        raise ValueError("no sizes and strides")
    return _Tensor(_of(_Storage, storage), offset, tuple(sizes), tuple(strides))


def _storage(kind: str, of: Any, key: str, _device: str, count: int, view: object) -> _Storage:
    """A storage from its persistent id."""
    if not isinstance(of, _Global) or of.module != "torch" or of.name not in _DTYPES:
        raise _FormatError(f"it holds values of an unknown type ({_described(of)})")
    if kind != "storage" or view is not None or type(count) is not int or count < 0:
        raise ValueError("no storage")
    return _Storage(_of(str, key), _DTYPES[of.name], count)


def _described(value: object) -> str:
    """A global's name."""
    return printable(f"{value.module}.{value.name}") if isinstance(value, _Global) else "no global"
