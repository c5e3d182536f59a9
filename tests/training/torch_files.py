"""PyTorch files of the format before version 1.6, written without PyTorch.

The tensors' pickle is put together by opcodes: Python's own pickler would have to import `torch`.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["View", "pickled", "torch_file", "view_opcodes", "write"]

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4, "long": 4}}


@dataclass(frozen=True)
class View:
    """A tensor: `count` values of a storage of that type, seen by offset, sizes and strides."""

    storage: str
    count: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    kind: str = "FloatStorage"


def pickled(value: Any) -> bytes:
    """As PyTorch pickles what is not a tensor."""
    return pickle.dumps(value, protocol=2)


def _opcodes(value: Any) -> bytes:
    return pickled(value)[2:-1]  # without PROTO and STOP


def view_opcodes(view: View) -> bytes:
    """The opcodes that leave a tensor on the stack."""
    storage = (
        b"("
        + _opcodes("storage")
        + f"ctorch\n{view.kind}\n".encode()
        + _opcodes(view.storage)
        + _opcodes("cpu")
        + _opcodes(view.count)
        + b"NtQ"
    )
    shape = _opcodes(view.offset) + _opcodes(view.sizes) + _opcodes(view.strides)
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89" + hooks + b"tR"


def torch_file(
    tensors: Mapping[str, View | bytes],
    storages: Mapping[str, npt.NDArray[Any]],
    *,
    head: Sequence[Any] = (MAGIC, 1001, SYSTEM),
) -> bytes:
    """A file's bytes.

    Args:
        tensors: by name; bytes are opcodes to stand in a tensor's place.
        storages: values by key, in the order in which they are written.
        head: what stands before the tensors.
    """
    entries = b"".join(
        _opcodes(name) + (view_opcodes(view) if isinstance(view, View) else view)
        for name, view in tensors.items()
    )
    # An OrderedDict with one attribute, as that of a module.
    metadata = b"}" + _opcodes("_metadata") + b"}sb"
    state = b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u" + metadata + b"."
    values = b"".join(len(row).to_bytes(8, "little") + row.tobytes() for row in storages.values())
    return b"".join(map(pickled, head)) + state + pickled(list(storages)) + values


def write(arrays: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """A file of contiguous float32 tensors."""
    views = {
        name: View(
            str(number),
            array.size,
            array.shape,
            tuple(stride // array.itemsize for stride in np.asarray(array, order="C").strides),
        )
        for number, (name, array) in enumerate(arrays.items())
    }
    storages = {
        str(number): np.ascontiguousarray(array).ravel()
        for number, array in enumerate(arrays.values())
    }
    return torch_file(views, storages)
