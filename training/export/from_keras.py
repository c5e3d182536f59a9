"""A user's own Keras classifier exported as a model version, without training."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from app.bundle import Architecture, ModelCard
from training.data import labels
from training.errors import ExportError
from training.export.from_network import export_network
from training.export.survey import TrainingPhotos
from training.export.versions import check_free
from training.graph import gradients
from training.graph.keras_reader import from_keras
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
    model = _load(path)
    try:
        network = from_keras(model)
        size = _input_size(model, input_size)
        _check(network, model, size)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    if len(classes) != network.classes:
        raise ExportError(
            f"{labels_path} lists {len(classes)} classes, but {path} has {network.classes}."
        )
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


def _load(path: Path) -> keras.Model:
    if not path.is_file():
        raise ExportError(f"The model file {path} does not exist.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ExportError(
            f"Keras cannot load a whole model from {path} "
            f"({type(error).__name__}: {reason.strip()})"
        ) from error


def _input_size(model: keras.Model, requested: int | None) -> int:
    """The side of the square input in pixels: the model's, or else the requested one.

    Raises:
        ExportError: the input is not a square RGB photo, or the sizes contradict each other.
    """
    shape = tuple(model.input_shape)
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


def _check(network: Network, model: keras.Model, size: int) -> None:
    """Compare the network's output with Keras's on noise, to catch what the reader may have missed.

    Keras's output may be logits or, if the model ends in a softmax, probabilities: either will do.

    Raises:
        ExportError: neither agrees.
    """
    photos = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    expected = np.asarray(model(photos, training=False), np.float32)  # [2, classes]
    weights: dict[str, dict[str, Any]] = {node.name: dict(node.weights) for node in network.nodes}
    logits = gradients.run(network, weights, tf.constant(photos))[network.nodes[-1].name]
    candidates = [np.asarray(logits), np.asarray(tf.nn.softmax(logits))]
    error = min(float(np.abs(candidate - expected).max()) for candidate in candidates)
    if error > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError("Converted layer by layer, the network does not compute what Keras does.")
