"""What a model version's boxes are drawn by: thresholds and fused rules, found on true boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.bundle import Bundle, Fused, Method, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import LayerSet
from training.data import Example
from training.errors import DataError
from training.explanations import FUSED, Explained, explain, layer_sets
from training.metrics import best_iou

__all__ = ["THRESHOLDS", "WEIGHTS", "BoxRules", "calibrate"]

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 41))
"""0.02 to 0.80: the grid that calibration searches."""

WEIGHTS = (0.25, 0.5, 0.75)
"""The foreground heatmap's weights that calibration tries. Never 1: a box is of its heatmap too."""


@dataclass(frozen=True, slots=True)
class BoxRules:
    """What `model.json` keeps: thresholds of the rule `heatmap`, and the rules `fused`."""

    thresholds: dict[Method, dict[str, float]]
    fused: dict[Method, dict[str, Fused]]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A layer set with a weight of the foreground's heatmap; 0 is the rule `heatmap`."""

    layers: LayerSet
    weight: float


def calibrate(bundle: Bundle, engine: Engine, examples: Sequence[Example]) -> BoxRules:
    """The threshold with the best mean IoU for each method and layer set (GT-known).

    For the last layer and the last six, also the weight and the threshold of the rule `fused`; it
    is left out where no weight beats the rule `heatmap`.

    Args:
        bundle: the model version.
        engine: runs it.
        examples: of the training split; those without a box are left out.

    Raises:
        DataError: none has a box.
    """
    boxed = [example for example in examples if example.boxes]
    if not boxed:
        raise DataError("No photo of this split has a box.")
    candidates = _candidates(bundle.card)

    def ious(row: Explained) -> npt.NDArray[np.float64]:
        foreground = row.foreground
        return np.stack([_ious(row, candidate, foreground) for candidate in candidates])

    total = np.zeros((len(candidates), len(THRESHOLDS)))
    for table in explain(bundle.card, engine, boxed, Cut.EXPLAIN_DEEP, ious, "calibrate"):
        total += table
    return _best(candidates, total)


def _candidates(card: ModelCard) -> list[_Candidate]:
    return [
        _Candidate(layers, weight)
        for layers in layer_sets(card)
        for weight in (0.0, *(WEIGHTS if layers.name in FUSED else ()))
    ]


def _ious(
    row: Explained, candidate: _Candidate, foreground: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """One photo's IoU at each threshold."""
    values = row.evidence(candidate.layers, Rule.HEATMAP).values
    if values is None:
        return np.zeros(len(THRESHOLDS))
    searched = heatmaps.blend(values, foreground, candidate.weight)
    boxes = row.boxes
    found = heatmaps.locate_all(searched, THRESHOLDS)
    return np.array([best_iou(row.in_photo(box), boxes) for box in found])


def _best(candidates: Sequence[_Candidate], total: npt.NDArray[np.float64]) -> BoxRules:
    """The best threshold of each candidate, and the best candidate of each layer set."""
    thresholds: dict[Method, dict[str, float]] = {}
    fused: dict[Method, dict[str, Fused]] = {}
    best: dict[LayerSet, float] = {}
    for candidate, sums in zip(candidates, total, strict=True):
        layers, threshold = candidate.layers, THRESHOLDS[int(np.argmax(sums))]
        if not candidate.weight:
            thresholds.setdefault(layers.method, {})[layers.name] = threshold
        elif sums.max() > best[layers]:
            fused.setdefault(layers.method, {})[layers.name] = Fused(
                foreground=candidate.weight, threshold=threshold
            )
        best[layers] = max(sums.max(), best.get(layers, 0.0))
    return BoxRules(thresholds, fused)
