"""Figures of an evaluation, as its JSON, that can be worked out by hand."""

from typing import Any

__all__ = ["box", "estimate", "known_figures"]


def estimate(value: float, difference: float, spread: float = 0.01) -> dict[str, Any]:
    return {
        "value": value,
        "interval": [value - spread, value + spread],
        "difference": difference,
        "difference_interval": [difference - spread, difference + spread],
    }


def box(value: float, difference: float, over_heatmap: float | None = None) -> dict[str, Any]:
    names = ("mean_iou", "gt_known_localization", "top1_localization", "max_box_acc_v2")
    metrics = {name: estimate(value, difference) for name in names}
    if over_heatmap is not None:
        metrics["mean_iou"]["difference_to_heatmap"] = over_heatmap
        edges = [over_heatmap - 0.01, over_heatmap + 0.01]
        metrics["mean_iou"]["difference_to_heatmap_interval"] = edges
    return metrics


def _curve(threshold: float, *, calibrated: bool = True) -> dict[str, Any]:
    return {
        "mean_iou": [0.3, 0.7, 0.4],
        "threshold": threshold,
        "calibrated": calibrated,
        "best_threshold": 0.3,
        "best_mean_iou": 0.7,
        "oracle_mean_iou": 0.8,
    }


def known_figures(**changes: Any) -> dict[str, Any]:
    """CAM 0.5, Grad-CAM 0.6 and fused 0.68 beside a constant box of 0.5."""
    cam, gradcam, fused = [0.4, 0.6], [0.5, 0.7], [0.6, 0.76]
    thresholds = [0.1, 0.3, 0.5]
    figures: dict[str, Any] = {
        "split": "test",
        "model": {"name": "toy", "version": 1, "head": "gap_dense"},
        "engine": "none float32",
        "photos": 4,
        "photos_with_boxes": 2,
        "top1": 0.75,
        "top1_interval": [0.5, 1.0],
        "top5": 1.0,
        "top5_interval": [1.0, 1.0],
        "most_confused": [],
        "localization": {
            "photos": 2,
            "methods": {"cam": {"last": box(0.5, 0.0)}, "gradcam": {"last": box(0.6, 0.1)}},
            "fused": {"gradcam": {"last": box(0.68, 0.18, 0.08)}},
            "customary": box(0.4, -0.1),
            "baselines": {"constant_box": box(0.5, 0), "full_frame": box(0.45, -0.05)},
        },
        "curves": {
            "cam": {"last": {"thresholds": thresholds, "heatmap": _curve(0.15, calibrated=False)}},
            "gradcam": {
                "last": {
                    "thresholds": thresholds,
                    "heatmap": _curve(0.1),
                    "fused": _curve(0.5),
                }
            },
        },
        "breeds": {
            "beagle": {"photos": 3, "photos_with_boxes": 1, "top1": 0.6667},
            "dingo": {"photos": 1, "photos_with_boxes": 1, "top1": 1.0},
        },
        "per_photo": [
            {
                "name": f"{index}.jpg",
                "breed": "beagle",
                "predicted": "beagle",
                "right": True,
                "iou": {"cam": {"last": cam[index]}, "gradcam": {"last": gradcam[index]}},
                "fused": {"gradcam": {"last": fused[index]}},
            }
            for index in range(2)
        ],
    }
    return figures | changes
