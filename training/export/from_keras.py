"""A user's own Keras classifier exported as a model version, without training."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Architecture, ModelCard
from training.data import labels
from training.errors import ExportError
from training.export import keras_file, rounding
from training.export.from_network import export_network
from training.export.survey import TrainingPhotos
from training.export.versions import check_free
from training.graph.keras_reader import from_keras, functional
from training.graph.network import Network
from training.networks.preprocessing import Preprocessing

__all__ = ["export_keras"]

_TOLERANCE = 0.02
"""How far the converted network may be off, as a share of Keras's greatest output."""


def export_keras(
    path: Path,
    labels_path: Path,
    version_dir: Path,
    *,
    input_size: int | None = None,
    preprocessing: Preprocessing = Preprocessing.NONE,
    photos: TrainingPhotos | None = None,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export a whole Keras model: a `.keras` file, or a legacy `.h5` file.

    Args:
        path: the model file; a file of weights alone is not enough.
        labels_path: the model's classes, see `labels.read`.
        version_dir: `models/<name>/<version>`.
        input_size: side of the square input in pixels; None if the model fixes it.
        preprocessing: what the model expects to be done to RGB from 0 to 255 outside of itself.
        photos: to learn foreground and novelty from; None learns neither.
        licence: of the weights, for `model.json`.
        provenance: of the weights, for `model.json`.
        overwrite: whether an existing version may be replaced.

    Raises:
        ExportError: the file holds no such model, a layer is not supported, the labels do not fit,
            or the version exists.
        DataError: the photos cannot be read, or are not of the model's classes.
    """
    check_free(version_dir, overwrite=overwrite)
    classes = labels.read(labels_path)
    model = keras_file.load(path)
    try:
        network = from_keras(model)
        size = _input_size(functional(model), input_size)
        outputs = _check(network, model, size, preprocessing)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    if len(classes) != network.classes:
        listed = f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"
        if outputs == 1:
            raise ExportError(
                f"{path} has one output, which tells two classes apart: {labels_path} must list "
                f"two, first that of a low output, and not {listed}."
            )
        raise ExportError(f"{labels_path} lists {listed}, but {path} has {network.classes}.")
    return export_network(
        network,
        version_dir,
        architecture=Architecture.KERAS,
        labels=classes,
        input_size=size,
        preprocessing=preprocessing,
        examples=photos.examples(classes) if photos else (),
        licence=licence,
        provenance=provenance,
        overwrite=overwrite,
    )


def _input_size(graph: Any, requested: int | None) -> int:
    """The side of the square input in pixels: the model's, or else the requested one.

    Args:
        graph: a functional model.
        requested: the size to use where the model takes any.

    Raises:
        ExportError: the input is not a square RGB photo, or the sizes contradict each other.
    """
    shape = tuple(graph.inputs[0].shape)
    if len(shape) != 4 or shape[3] != 3:
        raise ExportError(f"The model's input must be [N, h, w, 3], not {list(shape)}.")
    sides = {side for side in shape[1:3] if side is not None}
    if len(sides) > 1:
        raise ExportError(
            f"The model's input is {shape[1]} x {shape[2]} pixels; only squares are supported."
        )
    fixed = sides.pop() if sides else None
    size = requested if fixed is None else fixed
    if size is None:
        raise ExportError("The model takes photos of any size: pass --input-size.")
    if requested not in (None, size):
        raise ExportError(f"The model's input is {size} pixels wide, not --input-size {requested}.")
    return int(size)


def _check(network: Network, model: keras.Model, size: int, preprocessing: Preprocessing) -> int:
    """Compare the network's output with Keras's, to catch what the reader may have missed.

    Keras's output may be logits or, if the model ends in a softmax or sigmoid, probabilities:
    either will do.

    Returns:
        Number of outputs of the Keras model.

    Raises:
        ExportError: neither agrees, or Keras's output is not finite.
    """
    photos = rounding.probes(size)
    expected = _predict(model, np.asarray(preprocessing.apply(photos)))  # [N, outputs]
    rounding.check_finite(expected)
    logits = rounding.logits(network, preprocessing, photos).astype(np.float64)  # [N, classes]
    probabilities = np.asarray(keras.ops.softmax(logits))
    candidates = [logits, probabilities]
    if expected.shape[1] == 1:  # of two classes, the second's
        candidates = [logits[:, 1:] - logits[:, :1], probabilities[:, 1:]]
    error = min(float(np.abs(candidate - expected).max()) for candidate in candidates)
    if not error <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError("Converted layer by layer, the network does not compute what Keras does.")
    return int(expected.shape[1])


def _predict(model: keras.Model, photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The only output of a Keras model, whatever it is packed in: `[N, outputs]`.

    Args:
        model: with one input, which may have a name, and one output, which may too.
        photos: as the model expects them, `[N, S, S, 3]`.
    """
    structure = getattr(model, "input", None)  # a subclassed model has none
    packed = photos if structure is None else keras.tree.pack_sequence_as(structure, [photos])
    (output,) = keras.tree.flatten(model(packed, training=False))
    return np.asarray(output, np.float64)
