"""Figures that take too long for every photo: insertion, deletion, and model randomisation."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app import images
from app.bundle import Bundle, ModelCard, Rule
from app.engines import Batch, Cut, Engine
from app.evidence import MethodAtLayers
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.faithfulness import insertion_deletion
from training.evaluation.inference import Explained, explain
from training.evaluation.metrics import Floats, estimate, mean, resample
from training.evaluation.schema import (
    Baselines,
    Faithfulness,
    InsertionDeletion,
    Randomization,
    Similarity,
)
from training.evaluation.scoring import main_sets
from training.evaluation.statistics import BASELINES, Statistics, by_method, estimates

__all__ = [
    "drawn",
    "drawn_to_compare",
    "even_within",
    "faithfulness",
    "insertion_deletion_areas",
    "randomization",
    "similarity",
]

Map = npt.NDArray[np.float32]
Key = MethodAtLayers | str
"""A method's layer set, or a baseline's name."""


def drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """So many photos by lot, in their order."""
    indices = np.sort(np.random.default_rng(seed).permutation(len(examples))[:count])
    return [examples[index] for index in indices.tolist()]


def drawn_to_compare(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """The photos for `comparison`: of those with boxes if there are any.

    Raises:
        DataError: there are fewer than two, so that no photo's threshold can come from others.
    """
    boxed = [example for example in examples if example.boxes]
    sample = drawn(boxed or examples, count, seed)
    if len(sample) < 2:
        raise DataError(
            "--perturbation needs two photos or more"
            f"{' with boxes' if boxed else ''}, and this split has {len(sample)}."
        )
    return sample


def faithfulness(
    card: ModelCard, engine: Engine, examples: Sequence[Example], seed: int
) -> Faithfulness:
    """Insertion and deletion AUC of the model's top-1, by method, layer set and baseline.

    Args:
        card: the model's.
        engine: runs it.
        examples: the sample.
        seed: of the order of equal pixels, and of the intervals.
    """
    sets, size = main_sets(card), card.input.size
    blank = np.zeros((size, size), np.float32)
    even: dict[Key, Map] = {name: even_within(share, size) for name, share in BASELINES.items()}

    def heatmaps(row: Explained) -> tuple[Explained, dict[Key, Map]]:
        maps = dict(even)
        for layers in sets:
            values = row.evidence(layers, Rule.HEATMAP).values
            maps[layers] = blank if values is None else values
        return row, maps

    areas: dict[Key, list[tuple[float, float]]] = {}
    rows = explain(
        card, engine, examples, Cut.EXPLAIN_DEEP, heatmaps, "insertion, deletion", top1=True
    )
    for number, (row, maps) in enumerate(rows):
        # Methods may agree on a heatmap, whose areas are then computed once.
        by_content: dict[bytes, tuple[float, float]] = {}
        for key, values in maps.items():
            content = values.tobytes()
            if content not in by_content:
                by_content[content] = insertion_deletion_areas(engine, row, values, (seed, number))
            areas.setdefault(key, []).append(by_content[content])
    return _estimated(areas, sets, len(examples), seed)


def _estimated(
    areas: dict[Key, list[tuple[float, float]]],
    sets: Sequence[MethodAtLayers],
    count: int,
    seed: int,
) -> Faithfulness:
    """From insertion and deletion AUC of every photo."""
    weights = resample(count, seed=seed)

    def statistics(key: Key) -> Statistics:
        insertion, deletion = np.array(areas[key]).T  # [photos, 2] -> [photos] each
        return {"insertion": mean(insertion), "deletion": mean(deletion)}

    constant = statistics("constant_box")
    return Faithfulness(
        photos=count,
        methods=by_method(
            {
                layers: estimates(InsertionDeletion, statistics(layers), weights, constant)
                for layers in sets
            }
        ),
        baselines=Baselines[InsertionDeletion](
            constant_box=estimates(InsertionDeletion, constant, weights),
            full_frame=estimates(InsertionDeletion, statistics("full_frame"), weights, constant),
        ),
    )


def insertion_deletion_areas(
    engine: Engine, row: Explained, values: Map, seed: tuple[int, int]
) -> tuple[float, float]:
    """Insertion and deletion AUC of one heatmap `[size, size]`."""

    def predict(frames: npt.NDArray[np.uint8]) -> Map:
        probabilities = engine.run(Cut.PREDICT, Batch.of(frames))["probabilities"]
        return np.nan_to_num(probabilities)  # what is not finite counts as 0

    # Equal pixels go in the same order for all, so that their difference is not by chance.
    rng = np.random.default_rng(seed)
    return insertion_deletion(predict, row.image, values, int(row.outputs["target_index"]), rng)


def even_within(share: images.Box, size: int) -> Map:
    """A heatmap `[size, size]` that is 1 in a box, to whole pixels, and 0 outside."""
    xmin, ymin, xmax, ymax = (round(edge * size) for edge in share)
    values = np.zeros((size, size), np.float32)
    values[ymin:ymax, xmin:xmax] = 1
    return values


def randomization(bundle: Bundle, examples: Sequence[Example], seed: int) -> Randomization:
    """Similarity to the heatmaps of the model as trained, by the layer down to which it forgot.

    Args:
        bundle: the model version.
        examples: the sample.
        seed: of the random orders of weights, and of the intervals.
    """
    from training.evaluation import randomization as check  # TensorFlow takes seconds to import

    stages = check.randomization(bundle, examples, main_sets(bundle.card), seed=seed)
    return Randomization(
        photos=len(examples),
        down_to={
            layer: by_method(
                {layers: similarity(values, seed) for layers, values in by_set.items()}
            )
            for layer, by_set in stages.items()
        },
    )


def similarity(values: Floats, seed: int) -> Similarity:
    """The mean similarities over the photos where both are defined; the others are counted.

    Args:
        values: rank correlation and SSIM of every photo, `[N, 2]`; NaN where a heatmap is blank, or
            constant.
        seed: of the intervals.
    """
    shown = values[np.isfinite(values).all(axis=1)]  # [photos, 2]
    blank = len(values) - len(shown)
    if not len(shown):
        return Similarity(blank=blank)
    weights = resample(len(shown), seed=seed)
    rank_correlation, structural = shown.T
    return Similarity(
        rank_correlation=estimate(mean(rank_correlation), weights),
        structural_similarity=estimate(mean(structural), weights),
        blank=blank,
    )
