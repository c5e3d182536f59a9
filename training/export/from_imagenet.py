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
from training.networks.preprocessing import Preprocessing

__all__ = ["bootstrap", "breeds"]

INPUT_SIZE = 224


def bootstrap(
    version_dir: Path,
    *,
    weights: str = "imagenet",
    head: Path | None = None,
    photos: TrainingPhotos | None = None,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export Keras's ImageNet ResNet50 with the 120 breeds' columns of its final layer.

    Args:
        version_dir: `models/<name>/<version>`.
        weights: `imagenet` (downloaded by Keras), or a weights file in Keras's layout.
        head: the final layer for a weights file without a top, see `imagenet.read_head`.
        photos: to learn foreground and novelty from; None learns neither.
        licence: of the weights, for `model.json`; empty: `terms.IMAGENET`.
        provenance: of the weights, for `model.json`; empty: the names of the weights files.
        overwrite: whether an existing version may be replaced.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
        ExportError: the version exists.
        DataError: the photos cannot be read, or are not of the 120 breeds.
    """
    check_free(version_dir, overwrite=overwrite)
    network = breeds(architectures.imagenet_resnet50(weights, head, input_size=INPUT_SIZE))
    classes = labels.read(labels.STANFORD_DOGS)
    return export_network(
        network,
        version_dir,
        architecture=Architecture.RESNET50,
        labels=classes,
        input_size=INPUT_SIZE,
        preprocessing=Preprocessing.CAFFE,
        examples=photos.examples(classes) if photos else (),
        licence=licence or terms.IMAGENET,
        provenance=provenance or _provenance(weights, head),
        overwrite=overwrite,
    )


def breeds(model: keras.Model) -> Network:
    """A Keras model of ImageNet's 1000 classes as a network of the 120 breeds alone."""
    return from_keras(model).with_classes(imagenet.COLUMNS)


def _provenance(weights: str, head: Path | None) -> str:
    names = "Keras's ImageNet weights" if weights == "imagenet" else Path(weights).name
    if head is not None:
        names += f" and {head.name}"
    return f"{names}: the 120 columns of Stanford Dogs' breeds, without further training."
