"""Insertion and deletion on models whose curves are known by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from training.evaluation.faithfulness import (
    BLANK,
    area_under_curve,
    blurred,
    deletion_frames,
    in_order,
    insertion_deletion,
    insertion_frames,
)

WEIGHTS = np.array([[4, 3], [2, 1]], np.float32) / 10
"""What each of four pixels gives to the toy model's score, where it is not blank."""

IMAGE = np.full((2, 2, 3), 255, np.uint8)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _linear(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Class 1: the weights of the pixels that are not blank; class 0: the rest of 1."""
    kept = (images != np.array(BLANK, np.uint8)).any(axis=-1)
    score = (kept * WEIGHTS).sum(axis=(1, 2))
    return np.stack([1 - score, score], axis=1)


def _deletion(values: npt.ArrayLike) -> float:
    return insertion_deletion(_linear, IMAGE, np.array(values, np.float32), 1, _rng(), steps=4)[1]


def test_area_by_trapezoids() -> None:
    assert area_under_curve(np.array([1.0, 0.0])) == 0.5
    assert area_under_curve(np.array([1.0, 0.5, 0.0])) == 0.5
    assert area_under_curve(np.array([1.0, 1.0, 0.0])) == 0.75
    assert area_under_curve(np.full(7, 0.3)) == pytest.approx(0.3)


def test_deletion_on_a_linear_model() -> None:
    # 1, .6, .3, .1, 0 and, from the least pixel on, 1, .9, .7, .4, 0.
    assert _deletion(WEIGHTS) == pytest.approx((0.5 + 0.6 + 0.3 + 0.1) / 4)
    assert _deletion(-WEIGHTS) == pytest.approx((0.5 + 0.9 + 0.7 + 0.4) / 4)


def test_deletion_of_a_uniform_map_lies_between_on_average() -> None:
    rng = _rng()
    uniform = np.zeros((2, 2), np.float32)
    areas = [insertion_deletion(_linear, IMAGE, uniform, 1, rng, steps=4)[1] for _ in range(400)]

    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)  # of a straight line from 1 to 0
    assert min(areas) == pytest.approx(0.375)
    assert max(areas) == pytest.approx(0.625)


def test_insertion_on_a_linear_model() -> None:
    """16 pixels in a row, of which the model counts those that are as sharp as in the photo."""
    rng = _rng()
    image = rng.integers(0, 256, (1, 16, 3), dtype=np.uint8)
    assert (blurred(image) != image).any(axis=-1).all()
    weights = np.arange(16, dtype=np.float32)[None] / 120

    def sharp(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        score = ((images == image).all(axis=-1) * weights).sum(axis=(1, 2))
        return np.stack([score, 1 - score], axis=1)

    def insertion(values: npt.NDArray[np.floating]) -> float:
        return insertion_deletion(sharp, image, values, 0, rng, steps=4)[0]

    # Four at a time: 15 + 14 + 13 + 12 = 54, 92, 114, 120 of 120; or 6, 28, 66, 120.
    assert insertion(weights) == pytest.approx((54 + 92 + 114 + 60) / 480)
    assert insertion(-weights) == pytest.approx((6 + 28 + 66 + 60) / 480)


def test_the_target_is_the_class_that_is_followed() -> None:
    _, other = insertion_deletion(_linear, IMAGE, WEIGHTS, 0, _rng(), steps=4)

    assert other == pytest.approx(1 - _deletion(WEIGHTS))


def test_frames_start_and_end_as_the_definition_says() -> None:
    rng = _rng()
    image = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    order = in_order(rng.random((6, 5), np.float32), rng)

    deleted, inserted = deletion_frames(image, order, 7), insertion_frames(image, order, 7)

    assert deleted.shape == inserted.shape == (8, 6, 5, 3)
    assert deleted.dtype == inserted.dtype == np.uint8
    np.testing.assert_array_equal(deleted[0], image)
    np.testing.assert_array_equal(deleted[-1], np.broadcast_to(BLANK, image.shape))
    np.testing.assert_array_equal(inserted[0], blurred(image))
    np.testing.assert_array_equal(inserted[-1], image)
    changed = [int((frame != image).any(axis=-1).sum()) for frame in deleted]
    assert changed == [0, 4, 9, 13, 17, 21, 26, 30]  # of 30 pixels, by sevenths


def test_order_is_by_value_and_random_among_equals() -> None:
    values = np.array([[0, 3, 0], [0, 5, 1]], np.float32)

    orders = {tuple(in_order(values, np.random.default_rng(seed)).tolist()) for seed in range(60)}

    assert {order[:3] for order in orders} == {(4, 1, 5)}
    assert {order[3:] for order in orders} == {
        (0, 2, 3), (0, 3, 2), (2, 0, 3), (2, 3, 0), (3, 0, 2), (3, 2, 0)
    }  # fmt: skip
