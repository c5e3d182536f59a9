"""Each sentence is true of the numbers, and changes with them."""

from typing import Any

import pytest

from tests.training.report.known_figures import box, estimate, known_figures
from training.evaluation.schema import Evaluation
from training.report.sentences import paired, reading


def _read(figures: dict[str, Any]) -> str:
    return "\n".join(reading(Evaluation.model_validate(figures)))


def test_accuracy() -> None:
    text = _read(known_figures(ece=0.0321, confidence_ok=0.9))

    assert (
        "Top-1 accuracy is 75.0% over 4 photos (95 % interval 50.0% to 100.0%); top-5 accuracy is "
        "100.0%."
    ) in text
    assert "from beagle (66.7%) to dingo (100.0%)" in text
    assert "The expected calibration error of the served probabilities is 0.032." in text
    assert "Confidence is ok for 90.0% of the photos." in text
    assert "calibration error" not in _read(known_figures())
    few = known_figures(model={"name": "toy", "version": 1, "head": "gap_dense", "classes": 5})
    assert "(95 % interval 50.0% to 100.0%). By breed" in _read(few)


def test_boxes_are_better_or_worse_only_where_the_interval_is_clear_of_zero() -> None:
    text = _read(known_figures())

    assert (
        "The constant box, which ignores the photo, has a mean IoU of 0.500 [0.490, 0.510]. CAM, "
        "last layer, rule heatmap has 0.500 [0.490, 0.510]: the difference, +0.000 [-0.010, "
        "+0.010], may be chance."
    ) in text
    assert (
        "Grad-CAM, last layer, rule fused has 0.680 [0.670, 0.690]: better by 0.180 [0.170, "
        "0.190], clear of zero."
    ) in text
    assert "worse by 0.100 [0.090, 0.110]" in text


def test_breeds_where_the_served_box_beats_the_constant_one() -> None:
    figures = known_figures()
    for name, constant in (("beagle", 0.67), ("dingo", 0.2)):
        baselines = {"constant_box": constant, "full_frame": 0.1}
        figures["breeds"][name]["mean_iou_baselines"] = baselines
    figures["per_photo"][1]["breed"] = "dingo"

    text = _read(figures)

    # By the rule fused, the beagle has 0.6 and the dingo 0.76.
    assert "a higher mean IoU than the constant box for 1 of 2 breeds." in text


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (0.08, "The rule fused is better than the rule heatmap, with an interval clear of zero"),
        (-0.08, "The rule fused is worse than the rule heatmap, with an interval clear of zero"),
        (0.005, "The rule fused shows no clear difference to the rule heatmap"),
    ],
)
def test_the_rule_fused(difference: float, sentence: str) -> None:
    figures = known_figures()
    figures["localization"]["fused"]["gradcam"]["last"] = box(0.6, 0.1, difference)

    assert f"{sentence}, for: Grad-CAM, last layer." in _read(figures)


def test_paired_differences() -> None:
    better = paired([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])

    assert (better.value, better.difference) == (0.7, 0.1)
    assert better.difference_interval == (0.1, 0.1)
    crossing = paired([0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9]).difference_interval
    assert crossing is not None
    assert crossing[0] < 0 < crossing[1]


def test_the_best_method_and_what_is_as_good() -> None:
    text = _read(known_figures())

    assert "Grad-CAM, last layer, rule fused has the highest mean IoU, 0.680." in text
    assert "Its lead over all others is clear of zero." in text
    figures = known_figures()
    figures["per_photo"][0]["fused"]["gradcam"]["last"] = 0.45
    text = _read(figures)
    assert "Grad-CAM, last layer, rule fused has the highest mean IoU, 0.605." in text
    assert (
        "Its lead may be chance over: Grad-CAM, last layer, rule heatmap." in text
    )  # one photo up, one down; CAM is lower on both


def test_cam_beside_gradcam() -> None:
    text = _read(known_figures())

    assert "differ by 0.100 on average: the two do not agree" in text
    assert "Grad-CAM's mean is higher than CAM's by 0.100 [0.100, 0.100], clear of zero." in text
    assert "up to a factor" in text
    figures = known_figures(model={"name": "toy", "version": 1, "head": "other"})
    assert "up to a factor" not in _read(figures)
    for photo in figures["per_photo"]:
        photo["iou"]["gradcam"]["last"] = photo["iou"]["cam"]["last"]
    text = _read(figures)
    assert "differ by 0.000 on average: nearly the same." in text
    assert "Grad-CAM's mean to CAM's, +0.000 [+0.000, +0.000], may be chance." in text
    for photo in figures["per_photo"]:
        photo["iou"]["gradcam"]["last"] -= 0.25
    text = _read(figures)
    assert "Grad-CAM's mean is lower than CAM's by 0.250 [0.250, 0.250], clear of zero." in text


def test_thresholds_beside_the_oracle() -> None:
    text = _read(known_figures())

    assert (
        "At its default threshold 0.15, CAM, last layer, rule heatmap has a mean IoU of 0.500."
    ) in text
    assert (
        "At its calibrated threshold 0.5, Grad-CAM, last layer, rule fused has a mean IoU of "
        "0.680. The best threshold for these photos is 0.3, with 0.700. An oracle that picks the "
        "best threshold for each photo would reach 0.800."
    ) in text


def test_without_boxes_or_cam() -> None:
    bare = known_figures(localization={}, curves={}, per_photo=[], photos_with_boxes=0)
    text = _read(bare)
    assert "boxes cannot be judged" in text
    assert "IoU" not in text

    figures = known_figures()
    del figures["localization"]["methods"]["cam"], figures["curves"]["cam"]
    for photo in figures["per_photo"]:
        del photo["iou"]["cam"]
    assert "does not support CAM, so there is none to compare Grad-CAM with" in _read(figures)


def test_sampled_figures() -> None:
    areas = {
        "insertion": estimate(0.7, 0.1),
        "deletion": estimate(0.2, -0.1),
    }
    worse = {"insertion": estimate(0.7, -0.1), "deletion": estimate(0.2, 0.1)}
    same = {"insertion": estimate(0.7, 0.0), "deletion": estimate(0.2, -0.1)}
    likeness = {
        "rank_correlation": {"value": 0.1, "interval": [0.0, 0.2]},
        "structural_similarity": {"value": 0.1, "interval": [0.0, 0.2]},
    }
    text = _read(
        known_figures(
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


def test_blank_heatmaps_have_a_sentence_of_their_own() -> None:
    estimate = {"value": 0.1, "interval": [0.0, 0.2]}
    shown = {"rank_correlation": estimate, "structural_similarity": estimate, "blank": 2}

    def text(likeness: dict[str, Any]) -> str:
        down_to = {"conv1": {"gradcam": {"last": likeness}}}
        return _read(known_figures(randomization={"photos": 5, "down_to": down_to}))

    assert "is blank or constant for 2 of 5 photos" in text(shown)
    assert "0.100 [0.000, 0.200] with the model's own, over 3 photos" in text(shown)
    assert "is blank or constant for 5 of 5 photos" in text({"blank": 5})
    assert "rank correlation" not in text({"blank": 5})
    assert "is blank or constant for" not in text(shown | {"blank": 0})
