"""The localisation figures broken down: by threshold, by photo and by breed."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.bundle import ModelCard, Rule
from app.evidence import CURVE_THRESHOLDS, MethodAtLayers
from training.evaluation.inference import FUSED
from training.evaluation.schema import Baselines, Breed, ByMethod, Curve, Curves, PhotoResult
from training.evaluation.scoring import Score, Scored
from training.evaluation.statistics import BASELINES, by_method

__all__ = ["breeds", "photo_results", "threshold_curves"]

Bools = npt.NDArray[np.bool_]


def threshold_curves(card: ModelCard, photos: Sequence[Scored]) -> ByMethod[Curves]:
    """Mean IoU at each of `CURVE_THRESHOLDS`, for the last layer and the last six.

    Args:
        card: the model's.
        photos: those with boxes; without any there are no curves.
    """
    if not photos:
        return {}
    keys = photos[0].curves
    return by_method(
        {
            layers: Curves(
                thresholds=list(CURVE_THRESHOLDS),
                heatmap=_curve(card, layers, Rule.HEATMAP, photos),
                fused=_curve(card, layers, Rule.FUSED, photos)
                if (layers, Rule.FUSED) in keys
                else None,
            )
            for layers in dict.fromkeys(layers for layers, _ in keys)
        }
    )


def _curve(card: ModelCard, layers: MethodAtLayers, rule: Rule, photos: Sequence[Scored]) -> Curve:
    ious = np.stack([photo.curves[layers, rule] for photo in photos])  # [N, thresholds]
    means = ious.mean(axis=0)
    best = int(means.argmax())
    fused = card.fused[layers.method][layers.name] if rule is Rule.FUSED else None
    return Curve(
        mean_iou=[round(value, 4) for value in means.tolist()],
        best_threshold=CURVE_THRESHOLDS[best],
        best_mean_iou=round(float(means[best]), 4),
        oracle_mean_iou=round(float(ious.max(axis=1).mean()), 4),
        threshold=fused.threshold if fused else card.threshold(layers.method, layers.name),
        calibrated=fused is not None or layers.name in card.thresholds.get(layers.method, {}),
        foreground=fused.foreground if fused else None,
    )


def photo_results(
    card: ModelCard, photos: Sequence[Scored], probabilities: npt.NDArray[np.float32]
) -> list[PhotoResult]:
    """The likeliest breed and the IoUs of every photo with boxes.

    Args:
        card: the model's.
        photos: B photos with boxes.
        probabilities: theirs, `[B, classes]`.
    """
    return [
        PhotoResult(
            name=photo.example.name,
            breed=card.labels[photo.example.label].name,
            predicted=card.labels[predicted].name,
            right=predicted == photo.example.label,
            iou=_ious(photo.plain),
            fused=_ious(photo.fused),
        )
        for photo, predicted in zip(photos, probabilities.argmax(axis=1).tolist(), strict=True)
    ]


def _ious(scores: Mapping[MethodAtLayers, Score]) -> ByMethod[float]:
    return by_method(
        {layers: round(score.iou, 4) for layers, score in scores.items() if layers.name in FUSED}
    )


def breeds(
    card: ModelCard, labels: npt.NDArray[np.integer], correct: Bools, photos: Sequence[Scored]
) -> dict[str, Breed]:
    """Counts, accuracy and mean IoUs of every breed that has photos, by its name.

    Args:
        card: the model's.
        labels: of all N photos, `[N]`.
        correct: whether the likeliest breed is the right one, `[N]`.
        photos: those with boxes.
    """
    return {
        label.name: _breed(
            correct[labels == label.index],
            [photo for photo in photos if photo.example.label == label.index],
        )
        for label in card.labels
        if (labels == label.index).any()
    }


def _breed(correct: Bools, boxed: Sequence[Scored]) -> Breed:
    """One breed's figures, from all of its photos and those of them with boxes."""
    ious: ByMethod[float] | None = None
    baselines: Baselines[float] | None = None
    if boxed:
        ious = by_method(
            {
                layers: _mean_iou([photo.plain[layers] for photo in boxed])
                for layers in boxed[0].plain
                if layers.name in FUSED
            }
        )
        baselines = Baselines[float](
            **{name: _mean_iou([photo.baselines[name] for photo in boxed]) for name in BASELINES}
        )
    return Breed(
        photos=len(correct),
        photos_with_boxes=len(boxed),
        top1=round(float(correct.mean()), 4),
        mean_iou=ious,
        mean_iou_baselines=baselines,
    )


def _mean_iou(scores: Sequence[Score]) -> float:
    return round(float(np.mean([score.iou for score in scores])), 4)
