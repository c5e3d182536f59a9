"""A model of 120 breeds with no training: those that ImageNet's 1000 classes hold already."""

from pathlib import Path

import keras

from app.bundle import Architecture, ModelCard
from training import architectures, labels
from training.export import export_network
from training.keras_reader import from_keras
from training.network import Network
from training.preprocessing import Preprocessing

__all__ = ["COLUMNS", "bootstrap", "breeds"]

COLUMNS = (*(index for index in range(151, 269) if index != 251), 273, 274, 275)
"""Stanford Dogs' breeds among ImageNet-1k's classes; 251, the dalmatian, is none of them."""

INPUT_SIZE = 224


def bootstrap(
    version_dir: Path,
    *,
    weights: str = "imagenet",
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export Keras's ImageNet ResNet50 with the 120 breeds' columns of its final layer.

    Args:
        version_dir: `models/<name>/<version>`.
        weights: `imagenet` (downloaded by Keras), or a weights file with its layout and top.
        licence: of the weights, for `model.json`.
        provenance: of the weights, for `model.json`.
        overwrite: whether a version that is there already may be replaced.

    Raises:
        WeightsError: the weights cannot be downloaded, found or read.
        ExportError: the version exists.
    """
    return export_network(
        breeds(architectures.imagenet_resnet50(weights, input_size=INPUT_SIZE)),
        version_dir,
        architecture=Architecture.RESNET50,
        labels=labels.read(labels.STANFORD_DOGS),
        input_size=INPUT_SIZE,
        preprocessing=Preprocessing.CAFFE,
        licence=licence,
        provenance=provenance or _provenance(weights),
        overwrite=overwrite,
    )


def breeds(model: keras.Model) -> Network:
    """A network of ImageNet's 1000 classes, cut to the 120 breeds."""
    return from_keras(model).with_classes(COLUMNS)


def _provenance(weights: str) -> str:
    source = "Keras's ImageNet weights" if weights == "imagenet" else Path(weights).name
    return f"{source}: the 120 columns of Stanford Dogs' breeds, without further training."
