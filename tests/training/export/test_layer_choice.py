"""The foreground's layers on maps made by hand: the one that shows the box is chosen."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from app.images import Box
from training.export.foreground import RidgeRegression, box_shares
from training.export.layer_choice import BoxedForeground, RawMaps, best_layers

Floats = npt.NDArray[np.float32]
Draw = Callable[[list[Box], int], Floats]

BOXES: list[list[Box]] = [[(0.25, 0.25, 0.75, 0.5)], [(0.5, 0.0, 1.0, 0.75)], [(0, 0.25, 0.5, 1)]]


def _box_map(boxes: list[Box], cells: int) -> Floats:
    return box_shares(boxes, cells, cells)


def _elsewhere(boxes: list[Box], cells: int) -> Floats:
    """Evidence at the wrong place: the box upside down."""
    return _box_map(boxes, cells)[::-1]


@pytest.mark.parametrize(
    ("fine", "last", "expected"),
    [
        (_box_map, _elsewhere, ("fine",)),
        (_elsewhere, _box_map, ("last",)),
        (_box_map, lambda boxes, cells: np.zeros((cells, cells), np.float32), ("fine",)),
    ],
    ids=["finer", "last", "one of equal ones"],
)
def test_best_layers(fine: Draw, last: Draw, expected: tuple[str, ...]) -> None:
    raw: list[RawMaps] = [{"fine": fine(boxes, 8), "last": last(boxes, 4)} for boxes in BOXES]

    assert best_layers(raw, BOXES, ("fine", "last"), 32) == expected


def test_two_halves_of_a_box_are_fused() -> None:
    raw: list[RawMaps] = []
    for boxes in BOXES:
        halves = {"fine": _box_map(boxes, 8), "last": _box_map(boxes, 4)}
        halves["fine"][:, 4:] = 0
        halves["last"][:, :2] = 0
        raw.append(halves)

    assert best_layers(raw[:1], BOXES[:1], ("fine", "last"), 32) == ("fine", "last")


def _batch(rng: np.random.Generator, boxes: list[list[Box]]) -> dict[str, Floats]:
    """Descriptors of noise; at `fine`, the first channel tells the box."""
    fine = rng.normal(size=(len(boxes), 8, 8, 3)).astype(np.float32)
    fine[..., 0] = [5 * _box_map(photo_boxes, 8) for photo_boxes in boxes]
    early = rng.normal(size=(len(boxes), 8, 8, 2)).astype(np.float32)
    last = rng.normal(size=(len(boxes), 4, 4, 3)).astype(np.float32)
    return {"early": early, "fine": fine, "last": last}


def test_layer_that_tells_the_box_is_chosen_and_all_photos_teach() -> None:
    rng = np.random.default_rng(0)
    batches = [_batch(rng, BOXES) for _ in range(6)]
    foreground = BoxedForeground(18, 32)
    for batch in batches:
        foreground.add(batch, BOXES)

    assert foreground.layers() == ("fine",)

    projections = foreground.projections()
    assert list(projections) == ["early", "fine", "last"]
    for name, projection in projections.items():
        ridge = RidgeRegression()
        ridge.add(np.concatenate([batch[name] for batch in batches]), BOXES * 6)
        np.testing.assert_allclose(projection.direction, ridge.projection().direction, atol=1e-5)
        assert projection.offset == pytest.approx(ridge.projection().offset, abs=1e-5)


def test_what_taught_is_not_tried() -> None:
    """In the first half `last` tells the box, in the second it misleads: it is not chosen."""
    rng = np.random.default_rng(1)
    foreground = BoxedForeground(12, 32)
    for number in range(4):
        batch = _batch(rng, BOXES)
        batch["fine"][..., 0] = 5 * np.stack([_box_map(boxes, 8) for boxes in BOXES])
        batch["fine"][..., 0] += rng.normal(size=(3, 8, 8))
        batch["last"][..., 0] = [(9 if number < 2 else -9) * _box_map(boxes, 4) for boxes in BOXES]
        foreground.add(batch, BOXES)

    assert foreground.layers() == ("fine",)


def test_pair_need_not_have_the_last_layer() -> None:
    raw: list[RawMaps] = []
    for boxes in BOXES[:1]:
        halves = {"early": _box_map(boxes, 8), "fine": _box_map(boxes, 8)}
        halves["early"][:, :4] = 0
        halves["fine"][:, 4:] = 0
        raw.append(halves | {"last": _elsewhere(boxes, 4)})

    assert best_layers(raw, BOXES[:1], ("early", "fine", "last"), 32) == ("early", "fine")


def test_without_photos_to_try_on_both_are_fused() -> None:
    foreground = BoxedForeground(3, 32)
    foreground.add(_batch(np.random.default_rng(0), BOXES), BOXES)

    assert foreground.layers() == ("fine", "last")


def test_layers_of_one_size_are_tried_too() -> None:
    rng = np.random.default_rng(0)
    foreground = BoxedForeground(6, 32)
    for _ in range(2):
        batch = _batch(rng, BOXES)
        foreground.add({"early": batch["early"], "fine": batch["fine"]}, BOXES)

    assert foreground.layers() == ("fine",)
