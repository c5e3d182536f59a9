"""The main figures, each with what it has to beat."""

from typing import Any

from tests.training.report.known_figures import known_figures
from training.evaluation.schema import Evaluation
from training.report.tiles import Bar, Tile, tiles


def _tiles(**changes: Any) -> list[Tile]:
    return list(tiles(Evaluation.model_validate(known_figures(**changes))))


def test_tiles_hold_the_known_figures() -> None:
    accuracy, calibration, iou, share = _tiles(ece=0.0321, confidence_ok=0.9)

    assert (accuracy.value, accuracy.details) == (
        "75.0%",
        ["95 % interval 50.0% to 100.0%", "top-5: 100.0%"],
    )
    assert calibration.value == "0.032"
    assert calibration.details[1:] == ["confidence ok: 90.0% of the photos"]
    assert iou.value == "0.680"
    assert iou.bars == [Bar("Grad-CAM", 0.68, "0.680"), Bar("constant box", 0.5, "0.500")]
    assert iou.details == ["beside the constant box: better by 0.180 [0.170, 0.190]"]
    assert (share.value, share.bars[1]) == ("68.0%", Bar("constant box", 0.5, "50.0%"))


def test_what_was_not_measured_is_said() -> None:
    bare = _tiles(localization={}, curves={}, per_photo=[], photos_with_boxes=0)

    assert [tile.value for tile in bare] == ["75.0%", "", "", ""]
    assert all(tile.details[0].startswith("not measured: ") for tile in bare[1:])


def test_top5_of_five_classes_is_left_out() -> None:
    def details(classes: int) -> list[str]:
        model = {"name": "toy", "version": 1, "head": "gap_dense", "classes": classes}
        return _tiles(model=model)[0].details

    assert len(details(5)) == 1
    assert details(6)[1] == "top-5: 100.0%"
