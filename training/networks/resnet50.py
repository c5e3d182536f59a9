"""ResNet50, with ImageNet's weights from Keras's download or from files.

A file has the whole network, or the backbone; then a second one has the final layer.
"""

import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Architecture
from training.errors import WeightsError
from training.networks.imagenet import CLASSES

__all__ = ["check_parts", "read_head", "resnet50", "top", "with_top"]

_TOP = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
_NOTOP = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"

_FEATURES = 2048
"""Channels of the last map, which are pooled and read by the final layer."""

_SHAPES = {"kernel": (_FEATURES, CLASSES), "bias": (CLASSES,)}

Array = npt.NDArray[np.float32]
_Shape = tuple[int | None, int | None, int]


def resnet50(classes: int, weights: str = "none", *, input_size: int | None = None) -> keras.Model:
    """ResNet50 with global average pooling and one Dense layer.

    He et al., Deep Residual Learning for Image Recognition, 2015, as in `keras.applications`.

    Args:
        classes: number of logits.
        weights: `imagenet` (downloaded by Keras), `none`, or the path of a weights file in Keras's
            layout without the top.
        input_size: side of the square input in pixels; None for any size.

    Returns:
        A model from float32 `[N, h, w, 3]`, as `keras.applications.resnet50.preprocess_input`
        makes it, to float32 logits `[N, classes]`; its last activation is `conv5_block3_out`.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
    """
    backbone = _backbone(weights, (input_size, input_size, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    logits = keras.layers.Dense(classes, name="predictions")(pooled)
    return keras.Model(backbone.input, logits, name=Architecture.RESNET50.value)


def with_top(
    weights: str = "imagenet", head: Path | None = None, *, input_size: int = 224
) -> keras.Model:
    """ResNet50 with a head for ImageNet's 1000 classes, to logits.

    Args:
        weights: `imagenet` (downloaded by Keras, with the top), or the path of a weights file in
            Keras's layout.
        head: the final layer for a weights file without the top, see `read_head`; None
            if the weights file has the top.
        input_size: side of the square input in pixels.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read, or file and head do not fit
            together.
    """
    shape = (input_size, input_size, 3)
    if weights == "imagenet" and head is not None:
        raise WeightsError(
            "--head FILE goes with a weights file without the top: Keras's download has it."
        )
    if weights != "imagenet":
        check_parts(Path(weights), head)
    if head is None:
        return _keras_resnet50(weights, shape, top=True)
    kernel, bias = read_head(head)
    model = resnet50(CLASSES, weights, input_size=input_size)
    model.get_layer("predictions").set_weights([kernel, bias])
    return model


def top(source: str) -> tuple[Array, Array]:
    """Kernel `[2048, 1000]` and bias `[1000]` of the final layer of ImageNet's ResNet50.

    Args:
        source: `imagenet` (downloaded by Keras, with the backbone), or the path of a file for
            `read_head`.

    Raises:
        WeightsError: the layer cannot be downloaded, found or read.
    """
    if source != "imagenet":
        return read_head(Path(source))
    model = _keras_resnet50("imagenet", (224, 224, 3), top=True, option="--head")
    kernel, bias = model.layers[-1].get_weights()
    return kernel, bias


def _backbone(weights: str, shape: _Shape) -> keras.Model:
    return _keras_resnet50(None if weights == "none" else weights, shape, top=False)


def _keras_resnet50(
    weights: str | None, shape: _Shape, *, top: bool, option: str = "--weights"
) -> keras.Model:
    try:
        return keras.applications.ResNet50(
            weights=weights, include_top=top, input_shape=shape, classifier_activation=None
        )
    except Exception as error:  # urllib, h5py and Keras each raise their own
        reason = " ".join(str(error).split())
        if weights == "imagenet":
            raise WeightsError(
                f"Keras's ImageNet weights could not be downloaded ({reason}). Fetch "
                f"{_TOP if top else _NOTOP} on a machine with internet access "
                f"and put it in ~/.keras/models, or pass {option} FILE."
            ) from error
        kind = "with" if top else "without"
        raise WeightsError(
            f"{weights} holds no weights of a ResNet50 {kind} the top: {reason}"
        ) from error


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
