"""A model version over a split, through the service's own decoder, engine and box code."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from app import confidence
from app.bundle import Bundle, Method, ModelCard
from app.engines import Cut, Engine
from training.data.dataset import Example
from training.errors import DataError
from training.evaluation.accuracy import accuracy, confusion, most_confused
from training.evaluation.breakdowns import breeds, photo_results, threshold_curves
from training.evaluation.gallery import draw_gallery
from training.evaluation.inference import Explained, explain
from training.evaluation.localization import max_box_acc
from training.evaluation.metrics import (
    expected_calibration_error,
    in_top_k,
    mean,
    reliability,
    resample,
)
from training.evaluation.sampled import drawn, faithfulness, randomization
from training.evaluation.schema import (
    AccuracySummary,
    Baselines,
    BoxMetrics,
    BoxSummary,
    ByMethod,
    Evaluation,
    Interval,
    Localization,
    ModelName,
)
from training.evaluation.scoring import Score, Scored, scored
from training.evaluation.statistics import Statistics, by_method, estimates

__all__ = ["evaluate"]

_OF_BOX = ("mean_iou", "gt_known_localization", "top1_localization", "max_box_acc_v2")
"""Figures of the box and of the map it is searched in, not of the heatmap that is shown."""

Bools = npt.NDArray[np.bool_]


def evaluate(
    bundle: Bundle,
    engine: Engine,
    examples: Sequence[Example],
    *,
    split: str = "test",
    note: str | None = None,
    sample: int = 0,
    seed: int = 0,
    gallery: int = 0,
) -> Evaluation:
    """Accuracy over all photos; localisation over those with boxes; the rest over a sample.

    Localisation is GT-known, of the true class; insertion, deletion and the model randomisation
    check explain the model's own top-1. Every figure of a heatmap stands beside that of the
    constant box and of the full frame: as heatmaps they are even inside, with the peak in the
    middle. Intervals are of 95 %, from samples of the photos (bootstrap).

    `training.evaluation.comparison` measures what the figures leave out, which takes hours.

    Args:
        bundle: the model version.
        engine: runs it.
        examples: the split's photos.
        split: its name.
        note: what to know of these photos.
        sample: photos for insertion, deletion and the model randomisation check; 0 for neither.
        seed: of the samples.
        gallery: photos of each kind to draw, see `training.evaluation.gallery`; 0 for none.

    Raises:
        DataError: the split is empty.
    """
    if not examples:
        raise DataError("There are no photos in this split.")
    card = bundle.card
    photos = _measure(card, engine, examples)
    localization = _localization(photos.scores, photos.correct[photos.boxed], seed)
    per_photo = photo_results(card, photos.scores, photos.probabilities[photos.boxed])
    sampled = drawn(examples, sample, seed)
    return Evaluation(
        split=split,
        note=note,
        photos=len(examples),
        photos_with_boxes=len(photos.boxed),
        **dict(_accuracy_summary(card, photos, seed)),
        **dict(_box_summary(localization)),
        most_confused=most_confused(card.labels, photos.labels, photos.probabilities),
        engine=f"{engine.info.name} {engine.info.precision}",
        model=ModelName(
            name=card.name, version=card.version, head=card.head, classes=len(card.labels)
        ),
        localization=localization,
        curves=threshold_curves(card, photos.scores),
        breeds=breeds(card, photos.labels, photos.correct, photos.scores),
        confusion=confusion(card.labels, photos.labels, photos.probabilities),
        reliability=reliability(photos.probabilities, photos.labels)
        if _has_calibration(card, photos)
        else None,
        per_photo=per_photo,
        faithfulness=faithfulness(card, engine, sampled, seed) if sampled else None,
        randomization=randomization(bundle, sampled, seed) if sampled else None,
        gallery=draw_gallery(card, engine, photos.scores, per_photo, gallery, seed)
        if gallery and photos.scores
        else None,
    )


# -- measuring photos


@dataclass(frozen=True, slots=True)
class _Photo:
    """What is kept of a photo.

    Attributes:
        probabilities: float32 `[classes]`, as served.
        ok: whether the answer's `confidence` is; None where the model is not calibrated.
        scored: where it has boxes.
    """

    probabilities: npt.NDArray[np.float32]
    ok: bool | None
    scored: Scored | None


@dataclass(frozen=True, slots=True)
class _Photos:
    """N photos, B of them with boxes.

    Attributes:
        labels: the true classes, `[N]`.
        probabilities: float32 `[N, classes]`, as served.
        correct: whether the likeliest class is the true one, `[N]`.
        confident: whether each answer's `confidence` is ok; None where not calibrated.
        boxed: indices of the photos with boxes, `[B]`.
        scores: of the photos with boxes.
    """

    labels: npt.NDArray[np.integer]
    probabilities: npt.NDArray[np.float32]
    correct: Bools
    confident: list[bool | None]
    boxed: npt.NDArray[np.intp]
    scores: list[Scored]


def _measure(card: ModelCard, engine: Engine, examples: Sequence[Example]) -> _Photos:
    """Run every photo through the model, once for each cut."""
    photos = list(
        explain(card, engine, examples, Cut.EXPLAIN, _photo, "evaluate", deep=True, processes=True)
    )
    labels = np.array([example.label for example in examples])
    probabilities = np.stack([photo.probabilities for photo in photos])
    return _Photos(
        labels=labels,
        probabilities=probabilities,
        correct=in_top_k(probabilities, labels, 1),
        confident=[photo.ok for photo in photos],
        boxed=np.flatnonzero([photo.scored is not None for photo in photos]),
        scores=[
            replace(photo.scored, example=example)  # other processes have it without its photo
            for photo, example in zip(photos, examples, strict=True)
            if photo.scored is not None
        ],
    )


def _photo(row: Explained) -> _Photo:
    """Probabilities come from the outputs that `/predict` and `/gradcam` use, boxes from the deep.

    In bfloat16 the two differ: of 300 photos, one had another likeliest class.
    """
    limits = row.card.confidence
    return _Photo(
        row.outputs["probabilities"]
        if limits is None
        else confidence.probabilities(row.outputs["logits"], limits.temperature),
        confidence.is_ok(row.card, row.outputs),
        None if row.deep is None else scored(replace(row, outputs=row.deep)),
    )


def _accuracy_summary(card: ModelCard, photos: _Photos, seed: int) -> AccuracySummary:
    top1, top5 = (accuracy(photos.probabilities, photos.labels, k, seed=seed) for k in (1, 5))
    return AccuracySummary(
        top1=top1.value,
        top1_interval=top1.interval,
        top5=top5.value,
        top5_interval=top5.interval,
        ece=_calibration_error(card, photos),
        confidence_ok=_share_confident(card, photos),
    )


def _calibration_error(card: ModelCard, photos: _Photos) -> float | None:
    """ECE of the probabilities as served; None where not calibrated, or not finite."""
    if not _has_calibration(card, photos):
        return None
    return round(expected_calibration_error(photos.probabilities, photos.labels), 4)


def _has_calibration(card: ModelCard, photos: _Photos) -> bool:
    return card.confidence is not None and bool(np.isfinite(photos.probabilities).all())


def _share_confident(card: ModelCard, photos: _Photos) -> float | None:
    """The share of answers whose `confidence` is ok; None where not calibrated."""
    if card.confidence is None:
        return None
    return round(float(np.mean([bool(ok) for ok in photos.confident])), 4)


# -- localisation


def _localization(photos: Sequence[Scored], correct: Bools, seed: int) -> Localization | None:
    """Every figure of localisation, by method, layer set, rule and baseline.

    Args:
        photos: B photos with boxes; None comes back where there are none.
        correct: whether the likeliest class is the true one, `[B]`.
        seed: of the intervals.
    """
    if not photos:
        return None
    weights = resample(len(photos), seed=seed)
    constant = _statistics([photo.baselines["constant_box"] for photo in photos], correct)
    heatmap = {
        layers: _statistics([photo.plain[layers] for photo in photos], correct)
        for layers in photos[0].plain
    }
    fused = {
        layers: _of_box(_statistics([photo.fused[layers] for photo in photos], correct))
        for layers in photos[0].fused
    }
    frame = _statistics([photo.baselines["full_frame"] for photo in photos], correct)
    customary = _statistics([photo.customary for photo in photos], correct)
    return Localization(
        photos=len(photos),
        methods=by_method(
            {
                layers: estimates(BoxMetrics, statistics, weights, constant)
                for layers, statistics in heatmap.items()
            }
        ),
        baselines=Baselines[BoxMetrics](
            constant_box=estimates(BoxMetrics, constant, weights),
            full_frame=estimates(BoxMetrics, frame, weights, constant),
        ),
        customary=estimates(BoxMetrics, customary, weights, constant),
        fused=by_method(
            {
                layers: estimates(
                    BoxMetrics, statistics, weights, constant, heatmap=heatmap[layers]
                )
                for layers, statistics in fused.items()
            }
        ),
    )


def _statistics(scores: Sequence[Score], correct: Bools) -> Statistics:
    """The fields of `BoxMetrics` for one heatmap and rule, from B photos' scores."""
    ious = np.array([score.iou for score in scores])  # [B]
    hits = [score.hits for score in scores if score.hits is not None]  # [thresholds, 3] each
    return {
        "mean_iou": mean(ious),
        "gt_known_localization": mean(ious >= 0.5),
        "top1_localization": mean((ious >= 0.5) & correct),
        **({"max_box_acc_v2": max_box_acc(np.stack(hits))} if len(hits) == len(scores) else {}),
        "pointing_game": mean(np.array([score.points for score in scores])),
        "energy_in_box": mean(np.array([score.energy for score in scores])),
    }


def _of_box(statistics: Statistics) -> Statistics:
    return {name: statistics[name] for name in _OF_BOX}


def _box_summary(localization: Localization | None) -> BoxSummary:
    """The mean IoUs, and the share of photos where `/gradcam`'s box reaches an IoU of 0.5."""
    if localization is None or (gradcam := localization.served(Method.GRADCAM)) is None:
        return BoxSummary()
    served, customary = gradcam.gt_known_localization, localization.customary
    baselines = dict(localization.baselines)
    return BoxSummary(
        gt_known_localization=served.value,
        gt_known_localization_interval=served.interval,
        gt_known_localization_customary=customary.gt_known_localization.value,
        gt_known_localization_baselines={
            name: metrics.gt_known_localization.value for name, metrics in baselines.items()
        },
        mean_iou=_values(localization.methods),
        mean_iou_intervals=_intervals(localization.methods),
        mean_iou_fused=_values(localization.fused),
        mean_iou_fused_intervals=_intervals(localization.fused),
        mean_iou_customary=customary.mean_iou.value,
        mean_iou_baselines={name: metrics.mean_iou.value for name, metrics in baselines.items()},
    )


def _values(methods: ByMethod[BoxMetrics]) -> ByMethod[float]:
    return {
        method: {name: metrics.mean_iou.value for name, metrics in sets.items()}
        for method, sets in methods.items()
    }


def _intervals(methods: ByMethod[BoxMetrics]) -> ByMethod[Interval]:
    return {
        method: {name: metrics.mean_iou.interval for name, metrics in sets.items()}
        for method, sets in methods.items()
    }
