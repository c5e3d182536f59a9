"""A model version over a split, through the service's own decoder, engine and box code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from app import confidence
from app.bundle import Bundle, ModelCard, Rule
from app.engines import Cut, Engine
from app.evidence import CURVE_THRESHOLDS, MethodAtLayers
from training.accuracy import accuracy, most_confused
from training.data import Example
from training.errors import DataError
from training.explanations import FUSED, Explained, explain
from training.figures import BASELINES, Statistics, beside, of_methods, tree
from training.gallery import drawn
from training.localization import max_box_acc
from training.metrics import (
    Floats,
    expected_calibration_error,
    in_top_k,
    mean,
    resample,
)
from training.sampled import faithfulness, randomization
from training.scoring import Score, Scored, scored

__all__ = ["SHORT", "evaluate"]

SHORT = (
    "photos",
    "photos_with_boxes",
    "top1",
    "top1_interval",
    "top5",
    "top5_interval",
    "ece",
    "confidence_ok",
    "gt_known_localization",
    "gt_known_localization_interval",
    "gt_known_localization_customary",
    "gt_known_localization_baselines",
    "mean_iou",
    "mean_iou_intervals",
    "mean_iou_fused",
    "mean_iou_fused_intervals",
    "mean_iou_customary",
    "mean_iou_baselines",
    "most_confused",
    "engine",
)
"""What of the figures `model.json` keeps, as far as there is each."""

_OF_BOX = ("mean_iou", "gt_known_localization", "top1_localization", "max_box_acc_v2")
"""Figures of the box and of what it is searched in, not of the heatmap that is shown."""

Bools = npt.NDArray[np.bool_]


def evaluate(
    bundle: Bundle,
    engine: Engine,
    examples: Sequence[Example],
    *,
    sample: int = 0,
    seed: int = 0,
    gallery: int = 0,
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
        gallery: photos of each kind to draw, see `training.gallery`; the figures then hold
            pictures of them. 0 for none.

    Returns:
        JSON-ready figures; those of `SHORT` at the top. Without a box in the split, there is no
        IoU.

    Raises:
        DataError: the split is empty.
    """
    if not examples:
        raise DataError("There are no photos in this split.")
    card = bundle.card
    labels = np.array([example.label for example in examples])
    measured = list(
        explain(
            card, engine, examples, Cut.EXPLAIN, _measured, "evaluate", deep=True, processes=True
        )
    )
    probabilities = np.stack([photo.probabilities for photo in measured])
    right = in_top_k(probabilities, labels, 1)
    boxed = np.flatnonzero([photo.scored is not None for photo in measured])
    scores = [photo.scored for photo in measured if photo.scored is not None]
    localization = _localization(scores, right[boxed], seed)
    figures = {
        "model": {"name": card.name, "version": card.version, "head": card.head},
        "photos": len(examples),
        "photos_with_boxes": len(boxed),
        **accuracy(probabilities, labels, seed=seed),
        **_trust(card, measured, probabilities, labels),
        **_short(localization),
        "most_confused": most_confused(card.labels, labels, probabilities),
        "engine": f"{engine.info.name} {engine.info.precision}",
        "localization": localization,
        "curves": _curves(card, scores),
        "breeds": _breeds(card, labels, right, scores),
        "per_photo": _per_photo(card, scores, probabilities[boxed]),
    }
    if sample:
        figures |= _sampled(bundle, engine, examples, sample, seed)
    if gallery and scores:
        overlays = drawn(card, engine, scores, right[boxed], gallery, seed)
        figures["gallery"] = _gallery(overlays, figures["per_photo"])
    return figures


def _gallery(
    overlays: Mapping[str, Mapping[int, Any]], per_photo: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The photos of each kind, with what was measured on them and their overlays."""
    return {
        kind: [per_photo[index] | {"overlays": of_kind[index]} for index in of_kind]
        for kind, of_kind in overlays.items()
    }


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is kept of a photo.

    Attributes:
        probabilities: float32 `[classes]`, as served.
        ok: whether the answer's `confidence` is; None where the model is not calibrated.
        scored: where it has boxes.
    """

    probabilities: npt.NDArray[np.float32]
    ok: bool | None
    scored: Scored | None


def _measured(row: Explained) -> _Measured:
    """Probabilities come from the outputs that `/predict` and `/gradcam` use, boxes from the deep.

    In bfloat16 the two differ: of 300 photos, one had another likeliest class.
    """
    limits = row.card.confidence
    return _Measured(
        row.outputs["probabilities"]
        if limits is None
        else confidence.probabilities(row.outputs["logits"], limits.temperature),
        confidence.is_ok(row.card, row.outputs),
        None if row.deep is None else scored(replace(row, outputs=row.deep)),
    )


def _trust(
    card: ModelCard,
    measured: Sequence[_Measured],
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
) -> dict[str, float]:
    """How far probabilities can be trusted, where the card has limits."""
    if card.confidence is None:
        return {}
    return {
        "ece": round(expected_calibration_error(probabilities, labels), 4),
        "confidence_ok": round(float(np.mean([photo.ok for photo in measured])), 4),
    }


def _sampled(
    bundle: Bundle, engine: Engine, examples: Sequence[Example], sample: int, seed: int
) -> dict[str, Any]:
    """What is measured on so many photos, drawn by lot."""
    indices = np.sort(np.random.default_rng(seed).permutation(len(examples))[:sample])
    chosen = [examples[index] for index in indices.tolist()]
    return {
        "faithfulness": faithfulness(bundle.card, engine, chosen, seed),
        "randomization": randomization(bundle, chosen, seed),
    }


# -- localisation


def _localization(photos: Sequence[Scored], right: Bools, seed: int) -> dict[str, Any]:
    """Every figure of localisation, by method, layer set, rule and baseline."""
    if not photos:
        return {}
    weights = resample(len(photos), seed=seed)
    plain = {key: _statistics([one.plain[key] for one in photos], right) for key in photos[0].plain}
    fused = {key: _statistics([one.fused[key] for one in photos], right) for key in photos[0].fused}
    baselines = {
        name: _statistics([one.baselines[name] for one in photos], right) for name in BASELINES
    }
    constant = baselines["constant_box"]
    customary = _statistics([one.customary for one in photos], right)
    return {
        **of_methods(plain, baselines, weights),
        "customary": beside(customary, constant, weights),
        "fused": tree(
            {key: _beside_both(one, constant, plain[key], weights) for key, one in fused.items()}
        ),
    }


def _statistics(scores: Sequence[Score], right: Bools) -> Statistics:
    ious = np.array([score.iou for score in scores])
    hits = [score.hits for score in scores if score.hits is not None]
    return {
        "mean_iou": mean(ious),
        "gt_known_localization": mean(ious >= 0.5),
        "top1_localization": mean((ious >= 0.5) & right),
        **({"max_box_acc_v2": max_box_acc(np.stack(hits))} if len(hits) == len(scores) else {}),
        "pointing_game": mean(np.array([score.points for score in scores])),
        "energy_in_box": mean(np.array([score.energy for score in scores])),
    }


def _beside_both(
    fused: Statistics, constant: Statistics, plain: Statistics, weights: Floats
) -> dict[str, Any]:
    """Figures of the rule `fused` that are of its box, with those to the rule `heatmap` as well."""
    of_box = {name: fused[name] for name in _OF_BOX}
    to_plain = beside(of_box, plain, weights)
    return {
        name: {
            **told,
            "difference_to_heatmap": to_plain[name]["difference"],
            "difference_to_heatmap_interval": to_plain[name]["difference_interval"],
        }
        for name, told in beside(of_box, constant, weights).items()
    }


def _short(localization: Mapping[str, Any]) -> dict[str, Any]:
    """The mean IoUs alone, as `model.json` has them, and how often `/gradcam` finds the dog."""
    if not localization:
        return {
            name: {}
            for name in SHORT
            if name.startswith("mean_iou") and name != "mean_iou_customary"
        }

    def pick(key: str, rule: str) -> dict[str, dict[str, Any]]:
        return {
            method: {name: found["mean_iou"][key] for name, found in sets.items()}
            for method, sets in localization[rule].items()
        }

    def of_guesses(name: str) -> dict[str, float]:
        return {
            guess: figures[name]["value"] for guess, figures in localization["baselines"].items()
        }

    customary = localization["customary"]
    plain = localization["methods"]["gradcam"]["last"]
    served = localization["fused"].get("gradcam", {}).get("last", plain)["gt_known_localization"]
    return {
        "gt_known_localization": served["value"],
        "gt_known_localization_interval": served["interval"],
        "gt_known_localization_customary": customary["gt_known_localization"]["value"],
        "gt_known_localization_baselines": of_guesses("gt_known_localization"),
        "mean_iou": pick("value", "methods"),
        "mean_iou_intervals": pick("interval", "methods"),
        "mean_iou_fused": pick("value", "fused"),
        "mean_iou_fused_intervals": pick("interval", "fused"),
        "mean_iou_customary": customary["mean_iou"]["value"],
        "mean_iou_baselines": of_guesses("mean_iou"),
    }


def _curves(card: ModelCard, photos: Sequence[Scored]) -> dict[str, Any]:
    """Mean IoU at each threshold, and where the service draws its box, by rule."""
    curves: dict[MethodAtLayers, dict[str, Any]] = {}
    for layers, rule in photos[0].curves if photos else ():
        told = curves.setdefault(layers, {"thresholds": list(CURVE_THRESHOLDS)})
        told[rule.value] = _curve(np.stack([one.curves[layers, rule] for one in photos]))
        if rule is Rule.FUSED:
            fused = card.fused[layers.method][layers.name]
            told[rule.value] |= {
                "threshold": fused.threshold,
                "calibrated": True,
                "foreground": fused.foreground,
            }
        else:
            told[rule.value] |= {
                "threshold": card.threshold(layers.method, layers.name),
                "calibrated": layers.name in card.thresholds.get(layers.method, {}),
            }
    return tree(curves)


def _curve(ious: Floats) -> dict[str, Any]:
    """Of the photos' IoUs `[N, thresholds]`."""
    means = ious.mean(axis=0)
    best = int(means.argmax())
    return {
        "mean_iou": [round(value, 4) for value in means.tolist()],
        "best_threshold": CURVE_THRESHOLDS[best],
        "best_mean_iou": round(float(means[best]), 4),
        "oracle_mean_iou": round(float(ious.max(axis=1).mean()), 4),
    }


def _per_photo(
    card: ModelCard, photos: Sequence[Scored], probabilities: npt.NDArray[np.float32]
) -> list[dict[str, Any]]:
    """Each photo with boxes: what it is taken for, and its IoUs."""

    def ious(scores: Mapping[MethodAtLayers, Score]) -> dict[str, dict[str, float]]:
        kept = {key: score for key, score in scores.items() if key.name in FUSED}
        return tree({key: round(score.iou, 4) for key, score in kept.items()})

    told = []
    for one, predicted in zip(photos, probabilities.argmax(axis=1).tolist(), strict=True):
        told.append(
            {
                "name": one.example.name,
                "breed": card.labels[one.example.label].name,
                "predicted": card.labels[predicted].name,
                "right": predicted == one.example.label,
                "iou": ious(one.plain),
                "fused": ious(one.fused),
            }
        )
    return told


def _breeds(
    card: ModelCard,
    labels: npt.NDArray[np.integer],
    right: Bools,
    photos: Sequence[Scored],
) -> dict[str, Any]:
    """Counts, accuracy and mean IoUs of each breed that has photos, by its name."""
    breeds: dict[str, Any] = {}
    for label in card.labels:
        own = labels == label.index
        if not own.any():
            continue
        of_breed = [one for one in photos if one.example.label == label.index]
        breeds[label.name] = {
            "photos": int(own.sum()),
            "photos_with_boxes": len(of_breed),
            "top1": round(float(right[own].mean()), 4),
        }
        if of_breed:
            breeds[label.name] |= {
                "mean_iou": tree(
                    {
                        key: _mean_iou([one.plain[key] for one in of_breed])
                        for key in of_breed[0].plain
                        if key.name in FUSED
                    }
                ),
                "mean_iou_baselines": {
                    name: _mean_iou([one.baselines[name] for one in of_breed]) for name in BASELINES
                },
            }
    return breeds


def _mean_iou(scores: Sequence[Score]) -> float:
    return round(float(np.mean([score.iou for score in scores])), 4)
