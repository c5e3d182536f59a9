"""A model of 120 breeds without training: the breeds among ImageNet's 1000 classes."""

from pathlib import Path

import keras

from app.bundle import Architecture, ModelCard
from training.data import labels
from training.export import terms
from training.export.from_network import export_network
from training.export.survey import TrainingPhotos
from training.export.versions import check_free
from training.graph.keras_reader import from_keras
from training.graph.network import Network
from training.networks import architectures, imagenet

__all__ = ["INPUT_SIZES", "bootstrap", "breeds"]

INPUT_SIZES = {Architecture.RESNET50: 224, Architecture.EFFICIENTNET_LITE2: 260}
"""Pixels at which a network's ImageNet weights were trained."""


def bootstrap(
    version_dir: Path,
    *,
    architecture: Architecture = Architecture.RESNET50,
    input_size: int | None = None,
    weights: str = "imagenet",
    head: Path | None = None,
    photos: TrainingPhotos | None = None,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export a network of ImageNet's with the 120 breeds' columns of its final layer.

    Args:
        version_dir: `models/<name>/<version>`.
        architecture: of `INPUT_SIZES`.
        input_size: side of the square input in pixels; None: that of `INPUT_SIZES`.
        weights: `imagenet`, or a weights file; see `architectures.imagenet_network`.
        head: the final layer for a weights file without a top.
        photos: to learn foreground and novelty from; None learns neither.
        licence: of the weights, for `model.json`; empty: see `terms.licence`.
        provenance: of the weights, for `model.json`; empty: the names of the weights files.
        overwrite: whether an existing version may be replaced.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
        ExportError: the version exists.
        DataError: the photos cannot be read, or are not of the 120 breeds.
    """
    check_free(version_dir, overwrite=overwrite)
    size = input_size or INPUT_SIZES[architecture]
    network = breeds(architectures.imagenet_network(architecture, weights, head, input_size=size))
    classes = labels.read(labels.STANFORD_DOGS)
    return export_network(
        network,
        version_dir,
        architecture=architecture,
        labels=classes,
        input_size=size,
        preprocessing=architectures.preprocessing(architecture),
        examples=photos.examples(classes) if photos else (),
        licence=licence or terms.licence(architecture),
        provenance=provenance or _provenance(architecture, weights, head),
        overwrite=overwrite,
    )


def breeds(model: keras.Model) -> Network:
    """A Keras model of ImageNet's 1000 classes as a network of the 120 breeds alone."""
    return from_keras(model).with_classes(imagenet.COLUMNS)


def _provenance(architecture: Architecture, weights: str, head: Path | None) -> str:
    names = terms.weights_name(architecture, weights)
    if head is not None:
        names += f" and {head.name}"
    names = names[0].upper() + names[1:] if weights == "imagenet" else names
    return f"{names}: the 120 columns of Stanford Dogs' breeds, without further training."
