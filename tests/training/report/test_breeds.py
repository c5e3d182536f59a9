"""Breeds' tables, with numbers worked out by hand."""

from typing import Any

from app.bundle import Method
from tests.training.report.known_figures import known_figures
from training.evaluation.schema import Evaluation
from training.report.breeds import MATRIX, breeds, confusion_matrix, served_ious


def _evaluation(**changes: Any) -> Evaluation:
    """Beagle 0 and dingo 1: IoUs of CAM 0.4 and 0.6, of Grad-CAM by the rule fused 0.6 and 0.76."""
    figures = known_figures()
    figures["per_photo"][1]["breed"] = "dingo"
    for name, constant in (("beagle", 0.67), ("dingo", 0.2)):
        baselines = {"constant_box": constant, "full_frame": 0.1}
        figures["breeds"][name]["mean_iou_baselines"] = baselines
    return Evaluation.model_validate(figures | changes)


def test_ious_of_a_breed_are_by_the_rule_that_is_served() -> None:
    ious = served_ious(_evaluation())

    assert ious == {
        Method.CAM: {"beagle": 0.4, "dingo": 0.6},
        Method.GRADCAM: {"beagle": 0.6, "dingo": 0.76},
    }


def test_breeds_beside_the_constant_box() -> None:
    table = breeds(_evaluation())

    assert table.rows == [
        ("dingo", "1", "1.000", "1", "0.600", "0.760", "0.200", "better by 0.560"),
        ("beagle", "3", "0.667", "1", "0.400", "0.600", "0.670", "worse by 0.070"),
    ]
    assert table.head[4:6] == ("mean IoU, CAM, rule heatmap", "mean IoU, Grad-CAM, rule fused")
    assert [table.head[column] for column in sorted(table.bars)] == [
        "accuracy",
        *table.head[4:6],
        "mean IoU, constant box",
    ]


def test_breeds_without_boxes_have_accuracy_alone() -> None:
    bare = _evaluation(localization={}, curves={}, per_photo=[], photos_with_boxes=0)

    assert breeds(bare).rows == [("dingo", "1", "1.000"), ("beagle", "3", "0.667")]
    assert breeds(bare).bars == {2}


def test_a_long_table_scrolls() -> None:
    breed = {"photos": 1, "photos_with_boxes": 0, "top1": 1.0}

    assert not breeds(_evaluation(breeds={f"{n}": breed for n in range(29)})).tall
    assert breeds(_evaluation(breeds={f"{n}": breed for n in range(30)})).tall


def test_confusion_matrix_by_hand() -> None:
    counts = {"beagle": {"beagle": 1, "basset": 3}, "dingo": {"dingo": 2}}

    matrix = confusion_matrix(_evaluation(confusion=counts))

    assert matrix is not None
    assert matrix.names == ["beagle", "dingo", "basset"]  # the last has no photo of its own
    assert [(name, [(c.count, c.share) for c in cells]) for name, cells in matrix.rows] == [
        ("beagle", [(1, 0.25), (0, 0), (3, 0.75)]),
        ("dingo", [(0, 0), (2, 1), (0, 0)]),
    ]


def test_many_breeds_have_no_matrix() -> None:
    def counts(number: int) -> dict[str, dict[str, int]]:
        return {f"{n}": {f"{n}": 1} for n in range(number)}

    assert confusion_matrix(_evaluation(confusion=counts(MATRIX))) is not None
    assert confusion_matrix(_evaluation(confusion=counts(MATRIX + 1))) is None
    assert confusion_matrix(_evaluation()) is None
