"""Figures of LIME and KernelSHAP beside CAM and Grad-CAM, made up."""

from app.bundle import Method
from training.evaluation.perturbation import Perturbation
from training.evaluation.schema import Baselines, Compared, Comparison, Estimate, OnSample

__all__ = ["COMPARISON"]


def _estimate(value: float, difference: float | None = None) -> Estimate:
    if difference is None:
        return Estimate(value=value, interval=(value - 0.02, value + 0.02))
    return Estimate(
        value=value,
        interval=(value - 0.02, value + 0.02),
        difference=difference,
        difference_interval=(difference - 0.03, difference + 0.03),
    )


def _compared(
    iou: float, insertion: float, deletion: float, calls: float, seconds: float, rank: float | None
) -> Compared:
    similarity = None if rank is None else _estimate(rank)
    return Compared(
        mean_iou=_estimate(iou, iou - 0.6),
        gt_known_localization=_estimate(0.75, 0.05),
        pointing_game=_estimate(0.9, -0.1),
        insertion=_estimate(insertion, insertion - 0.4),
        deletion=_estimate(deletion, deletion - 0.2),
        threshold=0.22,
        rank_correlation=similarity,
        structural_similarity=similarity,
        similarity_blank=1 if rank else None,
        blank=2 if rank else 0,
        model_calls=calls,
        seconds=seconds,
    )


def _baseline(iou: float) -> OnSample:
    return OnSample(
        mean_iou=_estimate(iou),
        gt_known_localization=_estimate(0.7),
        pointing_game=_estimate(1),
        insertion=_estimate(0.4),
        deletion=_estimate(0.2),
    )


COMPARISON = Comparison(
    photos=50,
    samples=1000,
    perturbation={
        Perturbation.LIME: _compared(0.55, 0.65, 0.05, 1000, 11.25, 0.4),
        Perturbation.KERNELSHAP: _compared(0.61, 0.71, 0.09, 1002.5, 12.5, 0.3),
    },
    methods={
        Method.CAM: {"last": _compared(0.63, 0.60, 0.10, 1, 0.02, 0.9)},
        Method.GRADCAM: {"last": _compared(0.66, 0.62, 0.12, 1, 0.0234, None)},
    },
    baselines=Baselines[OnSample](constant_box=_baseline(0.6), full_frame=_baseline(0.5)),
)
