"""Figures that take too long for every photo: insertion, deletion, and model randomisation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app import images
from app.bundle import Bundle, ModelCard, Rule
from app.engines import Batch, Cut, Engine
from app.evidence import MethodAtLayers
from training.data import Example
from training.explanations import Explained, explain
from training.faithfulness import insertion_deletion
from training.figures import BASELINES, of_methods, tree
from training.metrics import estimate, mean, resample
from training.scoring import main_sets

__all__ = ["faithfulness", "randomization"]

Map = npt.NDArray[np.float32]
Maps = dict[MethodAtLayers | str, Map]


def faithfulness(
    card: ModelCard, engine: Engine, examples: Sequence[Example], seed: int
) -> dict[str, Any]:
    """Insertion and deletion AUC of the model's top-1, by method, layer set and baseline."""
    sets, size = main_sets(card), card.input.size
    nothing = np.zeros((size, size), np.float32)
    even: Maps = {name: _even(share, size) for name, share in BASELINES.items()}

    def maps(row: Explained) -> tuple[Explained, Maps]:
        found = dict(even)
        for layers in sets:
            values = row.evidence(layers, Rule.HEATMAP).values
            found[layers] = nothing if values is None else values
        return row, found

    areas: dict[MethodAtLayers | str, list[tuple[float, float]]] = {}
    rows = explain(card, engine, examples, Cut.EXPLAIN_DEEP, maps, "insertion, deletion", top1=True)
    for number, (row, found) in enumerate(rows):
        known: dict[bytes, tuple[float, float]] = {}  # methods may agree: then once for all
        for key, values in found.items():
            same = values.tobytes()
            if same not in known:
                known[same] = _areas(engine, row, values, (seed, number))
            areas.setdefault(key, []).append(known[same])
    every = {
        key: {
            "insertion": mean(np.array([insertion for insertion, _ in of])),
            "deletion": mean(np.array([deletion for _, deletion in of])),
        }
        for key, of in areas.items()
    }
    return of_methods(
        {key: one for key, one in every.items() if isinstance(key, MethodAtLayers)},
        {key: one for key, one in every.items() if isinstance(key, str)},
        resample(len(examples), seed=seed),
    )


def _areas(
    engine: Engine, row: Explained, values: Map, seed: tuple[int, int]
) -> tuple[float, float]:
    def predict(frames: npt.NDArray[np.uint8]) -> Map:
        probabilities: Map = engine.run(Cut.PREDICT, Batch.of(frames))["probabilities"]
        return probabilities

    # Equal pixels go in the same order for all, so that their difference is not by chance.
    rng = np.random.default_rng(seed)
    return insertion_deletion(predict, row.image, values, int(row.outputs["target_index"]), rng)


def _even(share: images.Box, size: int) -> Map:
    """A heatmap `[size, size]` that is 1 in a box, to whole pixels, and 0 outside."""
    xmin, ymin, xmax, ymax = (round(edge * size) for edge in share)
    values = np.zeros((size, size), np.float32)
    values[ymin:ymax, xmin:xmax] = 1
    return values


def randomization(bundle: Bundle, examples: Sequence[Example], seed: int) -> dict[str, Any]:
    """Likeness to the heatmaps of the model as it is, by layer down to which all have forgotten."""
    from training import randomization as check  # TensorFlow takes seconds to import

    weights = resample(len(examples), seed=seed)

    def figures(values: npt.NDArray[np.float64]) -> dict[str, Any]:
        return {
            "rank_correlation": estimate(mean(values[:, 0]), weights),
            "structural_similarity": estimate(mean(values[:, 1]), weights),
        }

    found = check.randomization(bundle, examples, main_sets(bundle.card), seed=seed)
    return {
        "photos": len(examples),
        "down_to": {
            layer: tree({layers: figures(values) for layers, values in likeness.items()})
            for layer, likeness in found.items()
        },
    }
