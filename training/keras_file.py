"""A user's own Keras classifier, exported as it is."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from app.bundle import Architecture, ModelCard
from training import gradients, labels
from training.errors import ExportError
from training.export import check_free, export_network
from training.keras_reader import from_keras
from training.network import Network
from training.preprocessing import Preprocessing
from training.survey import TrainingPhotos

__all__ = ["export_keras"]


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
    """Export a whole Keras model: a `.keras` file, or a legacy `.h5` one.

    Args:
        path: of the model; a file of weights alone does not do.
        labels_path: its classes, see `labels.read`.
        version_dir: `models/<name>/<version>`.
        input_size: pixels of the square input; None where the model tells.
        preprocessing: what the model wants done to RGB from 0 to 255 outside of itself.
        photos: to learn the foreground and what is novel from; None: neither is learnt.
        licence: of the weights, for `model.json`.
        provenance: of the weights, for `model.json`.
        overwrite: whether a version that is there already may be replaced.

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
            f"{labels_path} names {len(classes)} classes, and {path} tells {network.classes} apart."
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
        raise ExportError(f"There is no model file {path}.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ExportError(
            f"{path} holds no whole Keras model that can be loaded "
            f"({type(error).__name__}: {reason.strip()})"
        ) from error


def _input_size(model: keras.Model, asked: int | None) -> int:
    """The side of the square input in pixels: the model's own, or the one that is asked for."""
    shape = tuple(model.input_shape)
    if len(shape) != 4 or shape[3] != 3:
        raise ExportError(f"The input is to be [N, h, w, 3], not {list(shape)}.")
    own = {side for side in shape[1:3] if side is not None}
    if len(own) > 1:
        raise ExportError(f"The input is {shape[1]} x {shape[2]} pixels; only squares are served.")
    if not own and asked is None:
        raise ExportError("The model takes photos of any size: pass --input-size.")
    if own and asked not in (None, *own):
        raise ExportError(f"The input is {own.pop()} pixels wide, not --input-size {asked}.")
    return int(own.pop() if own else asked or 0)


def _check(network: Network, model: keras.Model, size: int) -> None:
    """Compare what was read with what Keras computes, for whatever the reader may have missed.

    Raises:
        ExportError: they differ.
    """
    photos = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    expected = np.asarray(model(photos, training=False), np.float32)
    weights: dict[str, dict[str, Any]] = {node.name: dict(node.weights) for node in network.nodes}
    last = network.nodes[-1].name
    logits = gradients.run(network, weights, tf.constant(photos))[last]
    actual = [np.asarray(logits), np.asarray(tf.nn.softmax(logits))]
    scale = max(1.0, float(np.abs(expected).max()))
    if min(float(np.abs(each - expected).max()) for each in actual) > 0.02 * scale:
        raise ExportError("Read layer by layer, the network does not compute what Keras computes.")
