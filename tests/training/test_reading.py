"""Each sentence is true of the numbers, and changes with them."""

from typing import Any

import pytest

from training.reading import paired, reading
from training.report_figures import Figures


def _estimate(value: float, difference: float, spread: float = 0.01) -> dict[str, Any]:
    return {
        "value": value,
        "interval": [value - spread, value + spread],
        "difference": difference,
        "difference_interval": [difference - spread, difference + spread],
    }


def _box(value: float, difference: float, over_heatmap: float | None = None) -> dict[str, Any]:
    names = ("mean_iou", "gt_known_localization", "top1_localization", "max_box_acc_v2")
    told = {name: _estimate(value, difference) for name in names}
    if over_heatmap is not None:
        told["mean_iou"]["difference_to_heatmap"] = over_heatmap
        edges = [over_heatmap - 0.01, over_heatmap + 0.01]
        told["mean_iou"]["difference_to_heatmap_interval"] = edges
    return told


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
    return "\n".join(reading(Figures.model_validate(figures)))


def test_accuracy() -> None:
    told = _read(_figures(ece=0.0321, confidence_ok=0.9))

    assert "right for 75.0% of 4 photos (95 % interval 50.0% to 100.0%)" in told
    assert "from beagle (66.7%) to dingo (100.0%)" in told
    assert "0.032 on average (expected calibration error)" in told
    assert "90.0% of the answers are told with confidence ok" in told
    assert "calibration error" not in _read(_figures())


def test_boxes_are_better_or_worse_only_where_the_interval_is_clear_of_zero() -> None:
    told = _read(_figures())

    assert (
        "CAM, last layer, rule heatmap has a mean IoU of 0.500 [0.490, 0.510], that of the "
        "constant box, which looks at no photo, 0.500: the difference of +0.000 [-0.010, +0.010] "
        "is not clear of zero"
    ) in told
    assert (
        "Grad-CAM, last layer, rule fused has a mean IoU of 0.680 [0.670, 0.690], that of the "
        "constant box, which looks at no photo, 0.500: it is better than the constant box by "
        "+0.180 [+0.170, +0.190], clear of zero."
    ) in told
    assert "it is worse than the constant box by -0.100 [-0.110, -0.090]" in told


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (0.08, "The rule fused is better than the rule heatmap, with an interval clear of zero"),
        (-0.08, "The rule fused is worse than the rule heatmap, with an interval clear of zero"),
        (0.005, "The rule fused cannot be told from the rule heatmap"),
    ],
)
def test_the_rule_fused(difference: float, told: str) -> None:
    figures = _figures()
    figures["localization"]["fused"]["gradcam"]["last"] = _box(0.6, 0.1, difference)

    assert f"{told}, for: Grad-CAM, last layer." in _read(figures)


def test_paired_differences() -> None:
    told = paired([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])

    assert (told.value, told.difference) == (0.7, 0.1)
    assert told.difference_interval == (0.1, 0.1)
    crossing = paired([0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9]).difference_interval
    assert crossing is not None
    assert crossing[0] < 0 < crossing[1]


def test_the_best_method_and_what_cannot_be_told_from_it() -> None:
    told = _read(_figures())

    assert "Grad-CAM, last layer, rule fused has the greatest mean IoU, 0.680." in told
    assert "Its difference to each of the others is clear of zero." in told
    figures = _figures()
    figures["per_photo"][0]["fused"]["gradcam"]["last"] = 0.45
    told = _read(figures)
    assert "Grad-CAM, last layer, rule fused has the greatest mean IoU, 0.605." in told
    assert (
        "It cannot be told from: Grad-CAM, last layer, rule heatmap." in told
    )  # one photo up, one down; CAM is lower on both


def test_cam_beside_gradcam() -> None:
    told = _read(_figures())

    assert "0.100 apart on an average photo: the two do not agree" in told
    assert "Grad-CAM's mean is +0.100 [+0.100, +0.100] from CAM's, clear of zero." in told
    assert "up to a factor" in told
    figures = _figures(model={"name": "toy", "version": 1, "head": "other"})
    assert "up to a factor" not in _read(figures)
    for photo in figures["per_photo"]:
        photo["iou"]["gradcam"]["last"] = photo["iou"]["cam"]["last"]
    told = _read(figures)
    assert "0.000 apart on an average photo: nearly the same." in told
    assert "+0.000 [+0.000, +0.000] from CAM's, not clear of zero." in told


def test_thresholds_beside_the_oracle() -> None:
    told = _read(_figures())

    assert (
        "At its default threshold 0.15, CAM, last layer, rule heatmap has a mean IoU of 0.500."
    ) in told
    assert (
        "At its calibrated threshold 0.5, Grad-CAM, last layer, rule fused has a mean IoU of "
        "0.680. Of the thresholds that were tried, 0.3 would be the best for these photos, with "
        "0.700; one picked for each photo with its true box in hand (an oracle) would have 0.800, "
        "0.120 more than the service."
    ) in told


def test_without_boxes_or_cam() -> None:
    bare = _figures(localization={}, curves={}, per_photo=[], photos_with_boxes=0)
    told = _read(bare)
    assert "boxes cannot be judged" in told
    assert "IoU" not in told

    figures = _figures()
    del figures["localization"]["methods"]["cam"], figures["curves"]["cam"]
    for photo in figures["per_photo"]:
        del photo["iou"]["cam"]
    assert "has no CAM to hold Grad-CAM against" in _read(figures)


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
    told = _read(
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

    assert "By insertion, over 5 photos, 1 of 3 heatmaps are better than the constant" in told
    assert "box and 1 worse, clear of zero. By deletion, over 5 photos, 2 of 3" in told
    assert "down to conv1 in a random order" in told
    assert "rank correlation of 0.100 [0.000, 0.200]" in told
