"""A model version over a split, through the service's own decoder, engine and box code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from app import heatmaps, images
from app.bundle import Bundle, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import LayerSet
from training.data import Example
from training.errors import DataError
from training.explanations import FUSED, Explained, explain, layer_sets
from training.faithfulness import insertion_deletion
from training.localization import (
    SCORE_THRESHOLDS,
    box_hits,
    energy_in_area,
    hits_at_levels,
    max_box_acc,
    pointing_hit,
)
from training.metrics import (
    CONSTANT_BOX,
    FULL_FRAME,
    Floats,
    Statistic,
    best_iou,
    estimate,
    in_top_k,
    mean,
    resample,
)

__all__ = ["SHORT", "evaluate"]

BASELINES = {"constant_box": CONSTANT_BOX, "full_frame": FULL_FRAME}
"""Boxes as shares of the frame; as heatmaps, they are even inside."""

SHORT = (
    "photos",
    "photos_with_boxes",
    "top1",
    "top1_interval",
    "top5",
    "mean_iou",
    "mean_iou_intervals",
    "mean_iou_baselines",
    "engine",
)
"""What of the figures `model.json` keeps."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Score:
    """One photo's figures for one layer set or baseline.

    Attributes:
        iou: of the box, at the calibrated threshold, with the best of the true boxes.
        points: whether the peak hits, as the pointing game counts.
        energy: in the true box that fits the box best, as the service tells it.
        hits: see `box_hits`.
    """

    iou: float
    points: bool
    energy: float
    hits: npt.NDArray[np.bool_]


def evaluate(
    bundle: Bundle, engine: Engine, examples: Sequence[Example], *, sample: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Accuracy over all photos; localisation over those with boxes; the rest over a sample.

    Localisation is GT-known, of the true class; insertion, deletion and the model randomisation
    check explain the model's own top-1. Wherever there is a figure of a heatmap, that of the
    constant box and the full frame is beside it: as a heatmap each is even inside, with its peak in
    the middle. Intervals are of 95 %, from samples of the photos (bootstrap).

    Args:
        bundle: the model version.
        engine: runs it.
        examples: the split.
        sample: photos for insertion, deletion and the model randomisation check; 0 for neither.
        seed: of the samples.

    Returns:
        JSON-ready figures; those of `SHORT` at the top. Without a box in the split, there is no
        IoU.

    Raises:
        DataError: the split is empty.
    """
    if not examples:
        raise DataError("There are no photos in this split.")
    card = bundle.card
    probabilities = np.stack(
        list(explain(card, engine, examples, Cut.EXPLAIN, _probabilities, "accuracy"))
    )
    labels = np.array([example.label for example in examples])
    right = in_top_k(probabilities, labels, 1)
    boxed = np.flatnonzero([bool(example.boxes) for example in examples])
    scores = _localize(card, engine, [examples[index] for index in boxed.tolist()])
    localization = _localization(scores, right[boxed], seed)
    figures = {
        "photos": len(examples),
        "photos_with_boxes": len(boxed),
        "top1": round(float(right.mean()), 4),
        "top1_interval": estimate(mean(right), resample(len(examples), seed=seed))["interval"],
        "top5": round(float(in_top_k(probabilities, labels, 5).mean()), 4),
        **_mean_ious(localization),
        "engine": f"{engine.info.name} {engine.info.precision}",
        "localization": localization,
        "breeds": _breeds(card, labels, right, boxed, scores),
    }
    if sample:
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(len(examples))[:sample]
        chosen = [examples[index] for index in np.sort(drawn).tolist()]
        figures["faithfulness"] = _faithfulness(card, engine, chosen, seed)
        figures["randomization"] = _randomization(bundle, chosen, seed)
    return figures


def _probabilities(row: Explained) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = row.outputs["probabilities"]
    return found


# -- localisation


def _localize(
    card: ModelCard, engine: Engine, examples: Sequence[Example]
) -> dict[LayerSet | str, list[Score]]:
    """The scores of the photos, by layer set and baseline."""
    sets = layer_sets(card)

    def work(row: Explained) -> dict[LayerSet | str, Score]:
        return {
            **{layers: _score(row, layers) for layers in sets},
            **{name: _score_of_baseline(row, share) for name, share in BASELINES.items()},
        }

    scores: dict[LayerSet | str, list[Score]] = {}
    for found in explain(card, engine, examples, Cut.EXPLAIN_DEEP, work, "localisation"):
        for key, score in found.items():
            scores.setdefault(key, []).append(score)
    return scores


def _score(row: Explained, layers: LayerSet) -> Score:
    """What the service would say, and how often it would be right at other thresholds."""
    size, boxes = row.card.input.size, row.boxes
    whole = (row.width, row.height)
    inner = [images.scale_box(box, whole, (size, size)) for box in boxes]
    evidence = row.evidence(layers, Rule.HEATMAP)
    if evidence.values is None:
        return Score(0.0, False, 0.0, box_hits(None, inner))
    found = evidence.box(*whole)
    best = int(np.argmax([best_iou(found, [box]) for box in boxes]))
    return Score(
        iou=best_iou(found, boxes),
        points=pointing_hit(evidence.peak(*whole), boxes),
        energy=heatmaps.energy_in_box(evidence.values, inner[best]),
        hits=box_hits(evidence.values, inner),
    )


def _score_of_baseline(row: Explained, share: images.Box) -> Score:
    guess, boxes = images.scale_box(share, (1, 1), (row.width, row.height)), row.boxes
    ious = [heatmaps.iou(guess, box) for box in boxes]
    middle = ((guess[0] + guess[2]) / 2, (guess[1] + guess[3]) / 2)
    return Score(
        iou=max(ious),
        points=pointing_hit(middle, boxes),
        energy=energy_in_area(guess, boxes[int(np.argmax(ious))]),
        hits=np.tile(hits_at_levels(max(ious)), (len(SCORE_THRESHOLDS), 1)),
    )


def _localization(
    scores: Mapping[LayerSet | str, Sequence[Score]],
    right: npt.NDArray[np.bool_],
    seed: int,
) -> dict[str, Any]:
    """Every figure of localisation, by method, layer set and baseline."""
    if not scores:
        return {}

    def statistics(of: Sequence[Score]) -> dict[str, Statistic]:
        ious = np.array([score.iou for score in of])
        return {
            "mean_iou": mean(ious),
            "gt_known_localization": mean(ious >= 0.5),
            "top1_localization": mean((ious >= 0.5) & right),
            "max_box_acc_v2": max_box_acc(np.stack([score.hits for score in of])),
            "pointing_game": mean(np.array([score.points for score in of])),
            "energy_in_box": mean(np.array([score.energy for score in of])),
        }

    every = {key: statistics(of) for key, of in scores.items()}
    return _beside_baselines(every, resample(len(right), seed=seed))


def _beside_baselines(
    every: Mapping[LayerSet | str, Mapping[str, Statistic]], weights: Floats
) -> dict[str, Any]:
    """Each statistic's estimate and its difference to the constant box's, in their tree."""

    def figures(key: LayerSet | str) -> dict[str, Any]:
        return {
            name: estimate(statistic, weights, None if key == "constant_box" else constant[name])
            for name, statistic in every[key].items()
        }

    constant = every["constant_box"]
    return {
        "photos": weights.shape[1],
        "methods": _tree({key: figures(key) for key in every if isinstance(key, LayerSet)}),
        "baselines": {name: figures(name) for name in BASELINES},
    }


def _tree(leaves: Mapping[LayerSet, T]) -> dict[str, dict[str, T]]:
    """By method, then by layer set."""
    tree: dict[str, dict[str, T]] = {}
    for layers, leaf in leaves.items():
        tree.setdefault(layers.method.value, {})[layers.name] = leaf
    return tree


def _mean_ious(localization: Mapping[str, Any]) -> dict[str, Any]:
    """The mean IoUs alone, as `model.json` has them."""

    def pick(key: str) -> dict[str, dict[str, Any]]:
        return {
            method: {name: found["mean_iou"][key] for name, found in sets.items()}
            for method, sets in localization.get("methods", {}).items()
        }

    return {
        "mean_iou": pick("value"),
        "mean_iou_intervals": pick("interval"),
        "mean_iou_baselines": {
            name: found["mean_iou"]["value"]
            for name, found in localization.get("baselines", {}).items()
        },
    }


def _breeds(
    card: ModelCard,
    labels: npt.NDArray[np.integer],
    right: npt.NDArray[np.bool_],
    boxed: npt.NDArray[np.integer],
    scores: Mapping[LayerSet | str, Sequence[Score]],
) -> dict[str, Any]:
    """Counts, accuracy and mean IoUs of each breed that has photos, by its name."""
    ious = {
        key: np.array([score.iou for score in of])
        for key, of in scores.items()
        if isinstance(key, str) or key.name in FUSED
    }
    breeds: dict[str, Any] = {}
    for label in card.labels:
        own, own_boxed = labels == label.index, labels[boxed] == label.index
        if not own.any():
            continue
        breeds[label.name] = {
            "photos": int(own.sum()),
            "photos_with_boxes": int(own_boxed.sum()),
            "top1": round(float(right[own].mean()), 4),
        }
        if own_boxed.any():
            means = {key: round(float(found[own_boxed].mean()), 4) for key, found in ious.items()}
            breeds[label.name] |= {
                "mean_iou": _tree({k: v for k, v in means.items() if isinstance(k, LayerSet)}),
                "mean_iou_baselines": {k: v for k, v in means.items() if isinstance(k, str)},
            }
    return breeds


# -- insertion and deletion


def _faithfulness(
    card: ModelCard, engine: Engine, examples: Sequence[Example], seed: int
) -> dict[str, Any]:
    """Insertion and deletion AUC of the model's top-1, by method, layer set and baseline."""
    sets = _fused(card)
    size = card.input.size
    nothing = np.zeros((size, size), np.float32)
    baselines: dict[LayerSet | str, npt.NDArray[np.float32]] = {
        name: _even(share, size) for name, share in BASELINES.items()
    }

    def maps(row: Explained) -> tuple[Explained, dict[LayerSet | str, npt.NDArray[np.float32]]]:
        found = dict(baselines)
        for layers in sets:
            values = row.evidence(layers, Rule.HEATMAP).values
            found[layers] = nothing if values is None else values
        return row, found

    areas: dict[LayerSet | str, list[tuple[float, float]]] = {}
    rows = explain(card, engine, examples, Cut.EXPLAIN_DEEP, maps, "insertion, deletion", top1=True)
    for number, (row, found) in enumerate(rows):
        target = int(row.outputs["target_index"])
        for key, values in found.items():
            # Equal pixels go in the same order for all, so that their difference is not by chance.
            rng = np.random.default_rng((seed, number))
            areas.setdefault(key, []).append(
                insertion_deletion(_predict(engine), row.image, values, target, rng)
            )
    every = {
        key: {
            "insertion": mean(np.array([insertion for insertion, _ in of])),
            "deletion": mean(np.array([deletion for _, deletion in of])),
        }
        for key, of in areas.items()
    }
    return _beside_baselines(every, resample(len(examples), seed=seed))


def _fused(card: ModelCard) -> list[LayerSet]:
    return [layers for layers in layer_sets(card) if layers.name in FUSED]


def _even(share: images.Box, size: int) -> npt.NDArray[np.float32]:
    """A heatmap `[size, size]` that is 1 in a box, to whole pixels, and 0 outside."""
    xmin, ymin, xmax, ymax = (round(edge * size) for edge in share)
    values = np.zeros((size, size), np.float32)
    values[ymin:ymax, xmin:xmax] = 1
    return values


def _predict(engine: Engine) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    def predict(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        none = np.full(len(frames), -1, np.int32)
        found: npt.NDArray[np.float32] = engine.run(Cut.PREDICT, frames, none, none)[
            "probabilities"
        ]
        return found

    return predict


# -- model randomisation


def _randomization(bundle: Bundle, examples: Sequence[Example], seed: int) -> dict[str, Any]:
    """Likeness to the heatmaps of the model as it is, by layer down to which all have forgotten."""
    from training.randomization import randomization  # TensorFlow takes seconds to import

    sets = _fused(bundle.card)
    weights = resample(len(examples), seed=seed)
    return {
        "photos": len(examples),
        "down_to": {
            layer: _tree(
                {
                    layers: {
                        "rank_correlation": estimate(mean(values[:, 0]), weights),
                        "structural_similarity": estimate(mean(values[:, 1]), weights),
                    }
                    for layers, values in found.items()
                }
            )
            for layer, found in randomization(bundle, examples, sets, seed=seed).items()
        },
    }
