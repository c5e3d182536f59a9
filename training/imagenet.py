"""ImageNet's ResNet50 in local files: a backbone and, apart from it, the final layer."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Label
from training import labels
from training.classes import matching_index
from training.errors import WeightsError

__all__ = ["CLASSES", "COLUMNS", "check_parts", "read_head", "start_head"]

CLASSES = 1000

COLUMNS = (*(index for index in range(151, 269) if index != 251), 273, 274, 275)
"""Stanford Dogs' breeds among ImageNet-1k's classes; 251, the dalmatian, is none of them."""

FEATURES = 2048
"""Channels of ResNet50's last map, which its final layer reads once pooled."""

_SHAPES = {"kernel": (FEATURES, CLASSES), "bias": (CLASSES,)}

Array = npt.NDArray[np.float32]


def read_head(path: Path) -> tuple[Array, Array]:
    """Read ImageNet's final layer from an `.npz`.

    Args:
        path: of a file with `kernel` `[2048, 1000]` and `bias` `[1000]`, of any float type.

    Returns:
        Kernel and bias, float32.

    Raises:
        WeightsError: no such file, no such arrays, or other shapes, types or values.
    """
    if not path.is_file():
        raise WeightsError(f"There is no file {path} for --head.")
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in _SHAPES if name in file}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no .npz file of arrays, as --head takes.") from error
    absent = [name for name in _SHAPES if name not in arrays]
    if absent:
        raise WeightsError(
            f"{path} lacks {' and '.join(absent)}: --head takes an .npz with kernel and bias."
        )
    for name, shape in _SHAPES.items():
        if arrays[name].shape != shape:
            raise WeightsError(
                f"{path}: {name} is {list(arrays[name].shape)}, not {list(shape)} as the final "
                "layer of ImageNet's ResNet50."
            )
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise WeightsError(f"{path}: {name} holds values that are no finite floats.")
    return arrays["kernel"].astype(np.float32), arrays["bias"].astype(np.float32)


def start_head(
    final: keras.layers.Dense, kernel: Array, bias: Array, classes: Sequence[Label]
) -> int:
    """Start a final layer from ImageNet's columns of the same breeds, by synset or name.

    Args:
        final: from features `[N, 2048]` to logits `[N, len(classes)]`; other classes keep their
            first weights.
        kernel: of ImageNet's final layer, `[2048, 1000]`.
        bias: of ImageNet's final layer, `[1000]`.
        classes: of the final layer.

    Returns:
        How many classes were matched.
    """
    breeds = labels.read(labels.STANFORD_DOGS)
    places = {label.index: matching_index(label, breeds) for label in classes}
    columns = {own: COLUMNS[place] for own, place in places.items() if place is not None}
    own_kernel, own_bias = (array.copy() for array in final.get_weights())
    own_kernel[:, list(columns)] = kernel[:, list(columns.values())]
    own_bias[list(columns)] = bias[list(columns.values())]
    final.set_weights([own_kernel, own_bias])
    return len(columns)


def check_parts(weights: Path, head: Path | None) -> None:
    """Make sure that a weights file and a head make one network: exactly one of them has the top.

    Raises:
        WeightsError: no such weights file, no HDF5, or both or neither have the top.
    """
    if not weights.is_file():
        raise WeightsError(f"There is no weights file {weights}.")
    has_top = _has_dense(weights)
    if has_top and head is not None:
        raise WeightsError(f"{weights} has a top of its own: leave out --head.")
    if not has_top and head is None:
        raise WeightsError(
            f"{weights} holds no weights of a ResNet50 with its top: pass ImageNet's final layer "
            "as --head FILE."
        )


def _has_dense(path: Path) -> bool:
    """Whether a weights file has a Dense layer's kernel: the one array of two axes in a ResNet50.

    Raises:
        WeightsError: it is no HDF5 file.
    """

    def two_axes(_name: str, entry: Any) -> bool | None:
        return True if isinstance(entry, h5py.Dataset) and entry.ndim == 2 else None

    try:
        with h5py.File(path, "r") as file:
            return bool(file.visititems(two_axes))
    except OSError as error:
        raise WeightsError(f"{path} is no weights file: Keras writes HDF5.") from error
