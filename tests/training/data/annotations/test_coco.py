from typing import Any

import pytest

from training.data.annotations.coco import read
from training.data.skipped import Skipped


def _names(categories: list[dict[str, object]] | None, *used: object) -> list[str | None]:
    """The class names of boxes with these category ids; None stands for no `category_id`."""
    contents: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": 1, "bbox": [1, 2, 3, 4]} | ({} if id is None else {"category_id": id})
            for id in used
        ],
    }
    if categories is not None:
        contents["categories"] = categories
    [annotation] = read(contents, "c.json", Skipped())
    return [box.class_name for box in annotation.boxes]


def test_names_of_categories() -> None:
    categories: list[dict[str, object]] = [
        {"id": 0, "name": "person"},
        {"id": 7, "name": " beagle"},
    ]

    assert _names(categories, 7, 0, None) == ["beagle", "person", None]
    assert _names(categories, 7, 3) == ["beagle", "category 3"]


def test_one_category_without_a_name_may_be_that_of_all_photos() -> None:
    assert _names([], 0, 0) == [None, None]
    assert _names(None, 5) == [None]
    assert _names([{"id": 5}], 5) == [None]


def test_several_categories_without_names_are_told_apart() -> None:
    assert _names([], 0, 1) == ["category 0", "category 1"]
    assert _names([{"id": []}, {"id": 1, "name": None}], 0, 1) == ["category 0", "category 1"]


def test_id_of_two_images(capsys: pytest.CaptureFixture[str]) -> None:
    contents: dict[str, Any] = {
        "images": [
            {"id": 1, "file_name": "a.jpg"},
            {"id": 1, "file_name": "b.jpg"},
            {"id": 2, "file_name": "c.jpg", "width": 60, "height": 48},
            {"id": 2, "file_name": "c.jpg", "width": 60, "height": 48},
        ],
        "annotations": [{"image_id": id, "bbox": [1, 2, 3, 4]} for id in (1, 2)],
    }
    skipped = Skipped()

    annotations = list(read(contents, "c.json", skipped))

    assert [(name, [box.edges for box in boxes]) for name, _, boxes in annotations] == [
        ("c.jpg", [(1, 2, 4, 6)])
    ]
    skipped.report()
    assert "c.json: annotation 0: two images have the id 1\n" in capsys.readouterr().err
