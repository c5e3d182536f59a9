"""ImageNet's classes: which of them are dog breeds, and a final layer that starts from those."""

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from app.bundle import Label
from training.data import labels
from training.data.classes import matching_index

__all__ = ["CLASSES", "COLUMNS", "start_head"]

CLASSES = 1000

COLUMNS = (*(index for index in range(151, 269) if index != 251), 273, 274, 275)
"""Indices of Stanford Dogs' 120 breeds in ImageNet-1k; 251, the dalmatian, is not one of them."""

Array = npt.NDArray[np.float32]


def start_head(
    layer: keras.layers.Dense, kernel: Array, bias: Array, classes: Sequence[Label]
) -> int:
    """Initialise a final layer from ImageNet's columns for the same breeds.

    Classes are matched by synset or name. Those that ImageNet lacks keep their weights.

    Args:
        layer: from features `[N, features]` to logits `[N, len(classes)]`.
        kernel: of ImageNet's final layer, `[features, 1000]`.
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
