"""Each sentence is true of the numbers, and changes with them."""

from typing import Any

import pytest

from training.evaluation.schema import Evaluation
from training.report.sentences import paired, reading


def _estimate(value: float, difference: float, spread: float = 0.01) -> dict[str, Any]:
    return {
        "value": value,
        "interval": [value - spread, value + spread],
        "difference": difference,
        "difference_interval": [difference - spread, difference + spread],
    }


def _box(value: float, difference: float, over_heatmap: float | None = None) -> dict[str, Any]:
    names = ("mean_iou", "gt_known_localization", "top1_localization", "max_box_acc_v2")
    metrics = {name: _estimate(value, difference) for name in names}
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


def _figures(**changes: Any) -> dict[str, Any]:
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
            "methods": {"cam": {"last": _box(0.5, 0.0)}, "gradcam": {"last": _box(0.6, 0.1)}},
            "fused": {"gradcam": {"last": _box(0.68, 0.18, 0.08)}},
            "customary": _box(0.4, -0.1),
            "baselines": {"constant_box": _box(0.5, 0), "full_frame": _box(0.45, -0.05)},
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


def _read(figures: dict[str, Any]) -> str:
    return "\n".join(reading(Evaluation.model_validate(figures)))


def test_accuracy() -> None:
    text = _read(_figures(ece=0.0321, confidence_ok=0.9))

    assert (
        "Top-1 accuracy is 75.0% over 4 photos (95 % interval 50.0% to 100.0%); top-5 accuracy is "
        "100.0%."
    ) in text
    assert "from beagle (66.7%) to dingo (100.0%)" in text
    assert "The expected calibration error of the served probabilities is 0.032." in text
    assert "Confidence is ok for 90.0% of the photos." in text
    assert "calibration error" not in _read(_figures())


def test_boxes_are_better_or_worse_only_where_the_interval_is_clear_of_zero() -> None:
    text = _read(_figures())

    assert (
        "CAM, last layer, rule heatmap have a mean IoU of 0.500 [0.490, 0.510]; the constant "
        "box, which ignores the photo, has 0.500: the difference of +0.000 [-0.010, +0.010] "
        "is not clear of zero"
    ) in text
    assert (
        "Grad-CAM, last layer, rule fused have a mean IoU of 0.680 [0.670, 0.690]; the constant "
        "box, which ignores the photo, has 0.500: better than the constant box by "
        "+0.180 [+0.170, +0.190], clear of zero."
    ) in text
    assert "worse than the constant box by -0.100 [-0.110, -0.090]" in text


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (0.08, "The rule fused is better than the rule heatmap, with an interval clear of zero"),
        (-0.08, "The rule fused is worse than the rule heatmap, with an interval clear of zero"),
        (0.005, "The rule fused is not clearly different from the rule heatmap"),
    ],
)
def test_the_rule_fused(difference: float, sentence: str) -> None:
    figures = _figures()
    figures["localization"]["fused"]["gradcam"]["last"] = _box(0.6, 0.1, difference)

    assert f"{sentence}, for: Grad-CAM, last layer." in _read(figures)


def test_paired_differences() -> None:
    better = paired([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])

    assert (better.value, better.difference) == (0.7, 0.1)
    assert better.difference_interval == (0.1, 0.1)
    crossing = paired([0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9]).difference_interval
    assert crossing is not None
    assert crossing[0] < 0 < crossing[1]


def test_the_best_method_and_what_is_as_good() -> None:
    text = _read(_figures())

    assert "Grad-CAM, last layer, rule fused has the highest mean IoU, 0.680." in text
    assert "Its lead over all others is clear of zero." in text
    figures = _figures()
    figures["per_photo"][0]["fused"]["gradcam"]["last"] = 0.45
    text = _read(figures)
    assert "Grad-CAM, last layer, rule fused has the highest mean IoU, 0.605." in text
    assert (
        "Its lead is not clear of zero over: Grad-CAM, last layer, rule heatmap." in text
    )  # one photo up, one down; CAM is lower on both


def test_cam_beside_gradcam() -> None:
    text = _read(_figures())

    assert "differ by 0.100 on average: the two do not agree" in text
    assert "Grad-CAM's mean less CAM's is +0.100 [+0.100, +0.100], clear of zero." in text
    assert "up to a factor" in text
    figures = _figures(model={"name": "toy", "version": 1, "head": "other"})
    assert "up to a factor" not in _read(figures)
    for photo in figures["per_photo"]:
        photo["iou"]["gradcam"]["last"] = photo["iou"]["cam"]["last"]
    text = _read(figures)
    assert "differ by 0.000 on average: nearly the same." in text
    assert "+0.000 [+0.000, +0.000], not clear of zero." in text


def test_thresholds_beside_the_oracle() -> None:
    text = _read(_figures())

    assert (
        "At its default threshold 0.15, CAM, last layer, rule heatmap has a mean IoU of 0.500."
    ) in text
    assert (
        "At its calibrated threshold 0.5, Grad-CAM, last layer, rule fused has a mean IoU of "
        "0.680. The best threshold for these photos is 0.3, with 0.700. An oracle that picks the "
        "best threshold for each photo would reach 0.800, 0.120 more than the service."
    ) in text


def test_without_boxes_or_cam() -> None:
    bare = _figures(localization={}, curves={}, per_photo=[], photos_with_boxes=0)
    text = _read(bare)
    assert "boxes cannot be judged" in text
    assert "IoU" not in text

    figures = _figures()
    del figures["localization"]["methods"]["cam"], figures["curves"]["cam"]
    for photo in figures["per_photo"]:
        del photo["iou"]["cam"]
    assert "does not support CAM, so there is none to compare Grad-CAM with" in _read(figures)


def test_sampled_figures() -> None:
    areas = {
        "insertion": _estimate(0.7, 0.1),
        "deletion": _estimate(0.2, -0.1),
    }
    worse = {"insertion": _estimate(0.7, -0.1), "deletion": _estimate(0.2, 0.1)}
    same = {"insertion": _estimate(0.7, 0.0), "deletion": _estimate(0.2, -0.1)}
    likeness = {
        "rank_correlation": {"value": 0.1, "interval": [0.0, 0.2]},
        "structural_similarity": {"value": 0.1, "interval": [0.0, 0.2]},
    }
    text = _read(
        _figures(
            faithfulness={
                "photos": 5,
                "methods": {"cam": {"last": areas}, "gradcam": {"last": worse, "last6": same}},
                "baselines": {"constant_box": areas, "full_frame": worse},
            },
            randomization={
                "photos": 5,
                "down_to": {"head": {}, "conv1": {"gradcam": {"last": likeness}}},
            },
        )
    )

    assert "By insertion, over 5 photos, 1 of 3 heatmaps are better than the constant" in text
    assert "box and 1 worse, clear of zero. By deletion, over 5 photos, 2 of 3" in text
    assert "down to conv1 in a random order" in text
    assert "rank correlation of 0.100 [0.000, 0.200]" in text
