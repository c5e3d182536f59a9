"""The threshold of each method and layer set, found on true boxes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.bundle import Bundle, Method
from app.engines import Cut, Engine
from training.data import Example
from training.errors import DataError
from training.explanations import Explained, explain, layer_sets
from training.localization import locate_all
from training.metrics import best_iou

__all__ = ["THRESHOLDS", "calibrate"]

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 31))
"""0.02 to 0.60: the grid that calibration searches."""


def calibrate(
    bundle: Bundle, engine: Engine, examples: Sequence[Example]
) -> dict[Method, dict[str, float]]:
    """The threshold with the best mean IoU for each method and layer set (GT-known).

    Args:
        bundle: the model version.
        engine: runs it.
        examples: of the training split; those without a box are left out.

    Raises:
        DataError: none has a box.
    """
    boxed = [example for example in examples if example.boxes]
    if not boxed:
        raise DataError(
            "Thresholds are found on boxes, and no photo to train on has one: they stay as they "
            "are. evaluate works without."
        )
    sets = layer_sets(bundle.card)

    def ious(row: Explained) -> npt.NDArray[np.float64]:
        """Of each layer set at each threshold."""
        table, boxes = np.zeros((len(sets), len(THRESHOLDS))), row.boxes
        for index, layers in enumerate(sets):
            values = row.values(layers)
            if values is not None:
                table[index] = [
                    best_iou(row.in_photo(found), boxes) for found in locate_all(values, THRESHOLDS)
                ]
        return table

    total = np.zeros((len(sets), len(THRESHOLDS)))
    for table in explain(bundle.card, engine, boxed, Cut.EXPLAIN_DEEP, ious, "calibrate"):
        total += table
    thresholds: dict[Method, dict[str, float]] = {}
    for layers, sums in zip(sets, total, strict=True):
        thresholds.setdefault(layers.method, {})[layers.name] = THRESHOLDS[int(np.argmax(sums))]
    return thresholds
