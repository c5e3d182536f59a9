"""Calibrates boxes on true ones: thresholds, and the rule `fused`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from app import heatmaps
from app.bundle import Bundle, Fused, Method, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import Evidence, MethodAtLayers
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation import localization
from training.evaluation.inference import FUSED, Explained, explain, layer_sets

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

    layers: MethodAtLayers
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
    ious = partial(_ious, candidates=candidates)
    total = np.zeros((len(candidates), len(THRESHOLDS)))
    for table in explain(
        bundle.card, engine, boxed, Cut.EXPLAIN_DEEP, ious, "box rules", processes=True
    ):
        total += table
    return _best(candidates, total)


def _candidates(card: ModelCard) -> list[_Candidate]:
    return [
        _Candidate(layers, weight)
        for layers in layer_sets(card)
        for weight in (0.0, *(WEIGHTS if layers.name in FUSED else ()))
    ]


def _ious(row: Explained, candidates: Sequence[_Candidate]) -> npt.NDArray[np.float64]:
    """One photo's IoU of each candidate at each threshold, `[candidates, thresholds]`.

    A layer set's heatmap is made once for all weights. Equal heatmaps are searched once: methods
    may agree at the last layer.
    """
    foreground, boxes = row.foreground, row.boxes_in_input
    evidence: dict[MethodAtLayers, Evidence] = {}
    tables: dict[tuple[bytes, tuple[int, ...], float], npt.NDArray[np.float64]] = {}
    rows = []
    for candidate in candidates:
        layers, weight = candidate.layers, candidate.weight
        if layers not in evidence:
            evidence[layers] = row.evidence(layers, Rule.HEATMAP)
        values = evidence[layers].values
        if values is None:
            rows.append(np.zeros(len(THRESHOLDS)))
            continue
        heatmap = evidence[layers].heatmap.values
        key = (heatmap.tobytes(), heatmap.shape, weight)
        if key not in tables:
            searched = heatmaps.blend(values, foreground, weight) if weight else values
            levels = np.array(THRESHOLDS, np.float32) * searched.max()
            regions = heatmaps.boxes_at(searched, levels)
            # [thresholds, true boxes]: the best of the true boxes counts.
            tables[key] = localization.ious(regions, boxes).max(axis=1)
        rows.append(tables[key])
    return np.stack(rows)


def _best(candidates: Sequence[_Candidate], total: npt.NDArray[np.float64]) -> BoxRules:
    """The best threshold of each candidate, and the best candidate of each layer set.

    Args:
        candidates: of each layer set, the one without the foreground first.
        total: IoUs summed over the photos, `[candidates, thresholds]`.
    """
    thresholds: dict[Method, dict[str, float]] = {}
    fused: dict[Method, dict[str, Fused]] = {}
    best: dict[MethodAtLayers, float] = {}
    for candidate, sums in zip(candidates, total, strict=True):
        layers, threshold = candidate.layers, THRESHOLDS[int(np.argmax(sums))]
        # A weight has to beat the rule `heatmap` and the weights before it.
        if not candidate.weight:
            thresholds.setdefault(layers.method, {})[layers.name] = threshold
        elif sums.max() > best[layers]:
            fused.setdefault(layers.method, {})[layers.name] = Fused(
                foreground=candidate.weight, threshold=threshold
            )
        best[layers] = max(sums.max(), best.get(layers, 0.0))
    return BoxRules(thresholds, fused)
