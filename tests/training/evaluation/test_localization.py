"""MaxBoxAccV2 and the pointing game, by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from app import heatmaps
from training.evaluation.localization import (
    SCORE_THRESHOLDS,
    box_hits,
    energy_in_area,
    hits_at_levels,
    max_box_acc,
    pointing_hit,
)
from training.evaluation.metrics import Floats

ALL = np.array([[0.5, 0.5]])
"""Weights of two photos that count alike."""


def _in_box(inside: float, outside: float) -> npt.NDArray[np.float32]:
    """A 10 x 10 map with two values, on either side of the edges of (2, 3, 7, 8)."""
    values = np.full((10, 10), outside, np.float32)
    values[3:8, 2:7] = inside
    return values


TRUE = (2.0, 3.0, 7.0, 8.0)


def test_score_map_thresholds() -> None:
    assert len(SCORE_THRESHOLDS) == 100
    assert SCORE_THRESHOLDS[:3] == (0.0, 0.01, 0.02)
    assert SCORE_THRESHOLDS[-1] == 0.99


def test_perfect_map_is_right_but_at_the_threshold_that_keeps_all() -> None:
    hits = box_hits(_in_box(1, 0), [(0.0, 0.0, 1.0, 1.0), TRUE])

    assert not hits[0].any()  # the whole frame has an IoU of 0.25
    assert hits[1:].all()


def test_score_map_is_normalised_first() -> None:
    np.testing.assert_array_equal(
        box_hits(_in_box(0.9, 0.4), [TRUE]), box_hits(_in_box(1, 0), [TRUE])
    )


def test_worst_map_is_never_right() -> None:
    corner = np.zeros((10, 10), np.float32)
    corner[9, 9] = 1

    assert not box_hits(corner, [TRUE]).any()
    assert not box_hits(None, [TRUE]).any()


def test_uniform_map_is_never_right() -> None:
    assert not box_hits(np.ones((10, 10), np.float32), [(0.0, 0.0, 10.0, 10.0)]).any()


def test_an_iou_that_reaches_a_level_exactly_counts() -> None:
    assert hits_at_levels([0.29, 0.3, 0.5, 0.7, 1.0]).tolist() == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
        [True, True, True],
    ]


def test_max_box_acc_by_hand() -> None:
    """Two photos, three thresholds: each IoU level has a best threshold of its own."""
    first = [[True, False, False], [True, True, False], [False, False, False]]
    second = [[True, False, False], [False, False, False], [True, True, True]]
    hits = np.array([first, second])

    # 0.3: 1 at the first threshold. 0.5: 1/2 at the second or third. 0.7: 1/2 at the third.
    assert max_box_acc(hits)(ALL) == pytest.approx([(1 + 1 / 2 + 1 / 2) / 3])
    # Weighed 3 : 1, the second threshold is the best for 0.5.
    assert max_box_acc(hits)(np.array([[0.75, 0.25]])) == pytest.approx([(1 + 0.75 + 0.25) / 3])


def test_max_box_acc_of_a_score_map_by_hand() -> None:
    """A core within a ring within the frame; boxes of 4, 36 and 100 pixels."""
    values = np.zeros((10, 10), np.float32)
    values[2:8, 2:8] = 0.5
    values[4:6, 4:6] = 1
    ring, core = (2.0, 2.0, 8.0, 8.0), (4.0, 4.0, 6.0, 6.0)

    hits = np.stack([box_hits(values, [ring]), box_hits(values, [core])])

    # 0 keeps the frame: IoU 0.36 and 0.04. 0.01 to 0.50: 1 and 1/9. From 0.51: 1/9 and 1.
    assert hits[0].nonzero()[0].tolist() == [0, *sorted([*range(1, 51)] * 3)]
    assert hits[1].nonzero()[0].tolist() == sorted([*range(51, 100)] * 3)
    assert max_box_acc(hits)(ALL) == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("point", "hit"),
    [
        ((30.0, 40.0), True),
        ((20.0, 40.0), True),  # on the edge
        ((5.0, 40.0), True),  # 15 pixels off
        ((4.9, 40.0), False),
        ((60.0, 80.0), True),  # 10 right of and 10 under the second box's corner
        ((50 + 9.0, 70 + 12.0), True),  # 15 from that corner
        ((50 + 9.1, 70 + 12.1), False),
        (None, False),
    ],
)
def test_pointing_game_allows_for_15_pixels(point: tuple[float, float] | None, hit: bool) -> None:
    boxes = [(20.0, 30.0, 40.0, 50.0), (45.0, 60.0, 50.0, 70.0)]

    assert pointing_hit(point, boxes) is hit


def test_energy_of_an_area() -> None:
    assert energy_in_area(TRUE, TRUE) == 1
    assert energy_in_area((0.0, 0.0, 10.0, 10.0), TRUE) == pytest.approx(0.25)
    assert energy_in_area((0.0, 0.0, 2.0, 3.0), TRUE) == 0
    assert energy_in_area(TRUE, (0.0, 0.0, 4.5, 8.0)) == pytest.approx(0.5)


def test_energy_of_an_area_is_that_of_its_map() -> None:
    box = (3.5, 1.0, 9.0, 6.25)
    assert energy_in_area(TRUE, box) == pytest.approx(heatmaps.energy_in_box(_in_box(1, 0), box))


def test_statistic_takes_many_samples() -> None:
    weights: Floats = np.array([[1.0, 0.0], [0.0, 1.0]])
    hits = np.array([[[True, True, True]], [[True, False, False]]])

    assert max_box_acc(hits)(weights) == pytest.approx([1, 1 / 3])
