"""ImageNet's ResNet50 in local files: a backbone and, in a separate file, the final layer."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Label
from training.data import labels
from training.data.classes import matching_index
from training.errors import WeightsError

__all__ = ["CLASSES", "COLUMNS", "check_parts", "read_head", "start_head"]

CLASSES = 1000

COLUMNS = (*(index for index in range(151, 269) if index != 251), 273, 274, 275)
"""Indices of Stanford Dogs' 120 breeds in ImageNet-1k; 251, the dalmatian, is not one of them."""

FEATURES = 2048
"""Channels of ResNet50's last map, which are pooled and read by its final layer."""

_SHAPES = {"kernel": (FEATURES, CLASSES), "bias": (CLASSES,)}

Array = npt.NDArray[np.float32]


def read_head(path: Path) -> tuple[Array, Array]:
    """Read ImageNet's final layer from an `.npz`.

    Args:
        path: a file with `kernel` `[2048, 1000]` and `bias` `[1000]`, of any float type.

    Returns:
        Kernel `[2048, 1000]` and bias `[1000]`, float32.

    Raises:
        WeightsError: the file or an array is missing, or an array has another shape or type, or
            values that are not finite.
    """
    if not path.is_file():
        raise WeightsError(f"--head {path} does not exist.")
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in _SHAPES if name in file}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"--head {path} is not an .npz file of arrays.") from error
    missing = [name for name in _SHAPES if name not in arrays]
    if missing:
        raise WeightsError(
            f"--head {path} has no {' and no '.join(missing)}: it must be an .npz file with "
            "kernel and bias."
        )
    for name, shape in _SHAPES.items():
        if arrays[name].shape != shape:
            raise WeightsError(
                f"{path}: {name} has shape {list(arrays[name].shape)}. The final layer of "
                f"ImageNet's ResNet50 has {list(shape)}."
            )
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise WeightsError(f"{path}: {name} has values that are not finite floats.")
    return arrays["kernel"].astype(np.float32), arrays["bias"].astype(np.float32)


def start_head(
    layer: keras.layers.Dense, kernel: Array, bias: Array, classes: Sequence[Label]
) -> int:
    """Initialise a final layer from ImageNet's columns for the same breeds.

    Classes are matched by synset or name. Those that ImageNet lacks keep their weights.

    Args:
        layer: from features `[N, 2048]` to logits `[N, len(classes)]`.
        kernel: of ImageNet's final layer, `[2048, 1000]`.
        bias: of ImageNet's final layer, `[1000]`.
        classes: of the layer.

    Returns:
        The number of classes that were matched.
    """
    breeds = labels.read(labels.STANFORD_DOGS)
    matches = {label.index: matching_index(label, breeds) for label in classes}
    # from the layer's column to ImageNet's
    columns = {index: COLUMNS[breed] for index, breed in matches.items() if breed is not None}
    layer_kernel, layer_bias = (array.copy() for array in layer.get_weights())
    layer_kernel[:, list(columns)] = kernel[:, list(columns.values())]
    layer_bias[list(columns)] = bias[list(columns.values())]
    layer.set_weights([layer_kernel, layer_bias])
    return len(columns)


def check_parts(weights: Path, head: Path | None) -> None:
    """Check that a weights file and a head make up one network: exactly one of them has the top.

    Args:
        weights: a weights file in Keras's layout, with or without the top.
        head: see `read_head`; None for none.

    Raises:
        WeightsError: the weights file does not exist or is not HDF5, or both or neither have the
            top.
    """
    if not weights.is_file():
        raise WeightsError(f"--weights {weights} does not exist.")
    has_top = _has_dense(weights)
    if has_top and head is not None:
        raise WeightsError(f"{weights} includes the top: leave out --head.")
    if not has_top and head is None:
        raise WeightsError(
            f"{weights} holds no weights of a ResNet50 with the top: pass ImageNet's final layer "
            "as --head FILE."
        )


def _has_dense(path: Path) -> bool:
    """Whether a weights file has a Dense layer's kernel: the only matrix in a ResNet50.

    Raises:
        WeightsError: it is not an HDF5 file.
    """

    def is_matrix(_name: str, entry: Any) -> bool | None:
        # `visititems` goes on for None and stops for anything else, which it returns.
        return True if isinstance(entry, h5py.Dataset) and entry.ndim == 2 else None

    try:
        with h5py.File(path, "r") as file:
            return bool(file.visititems(is_matrix))
    except OSError as error:
        raise WeightsError(f"{path} is not a Keras weights file (HDF5).") from error
