"""Where the foreground's directions come from, against numpy's solvers and by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from app.images import Box
from training.export.foreground import (
    PENALTY,
    DescriptorTransform,
    RidgeRegression,
    box_shares,
    channel_sum,
    fused_layers,
    principal_direction,
)

Maps = npt.NDArray[np.float32]


def test_principal_direction_of_a_known_matrix() -> None:
    axis = np.array([0.6, 0.0, 0.8])
    covariance = 5 * np.outer(axis, axis) + np.eye(3)

    assert abs(principal_direction(covariance) @ axis) == pytest.approx(1)


def _maps(rng: np.random.Generator) -> Maps:
    """Descriptors that vary along (0.6, -0.8), high in the middle of each photo."""
    middle = np.zeros((8, 8))
    middle[2:6, 2:6] = 1
    strength = middle[None] * rng.uniform(2, 3, (6, 1, 1))
    noise = rng.normal(0, 0.05, (6, 8, 8, 2))
    maps: npt.NDArray[np.float64] = strength[..., None] * np.array([0.6, -0.8]) + noise + 1
    return maps.astype(np.float32)


def test_direction_is_found_and_points_to_the_middle() -> None:
    maps = _maps(np.random.default_rng(0))
    transform = DescriptorTransform()
    transform.add(maps[:4])
    transform.add(maps[4:])

    projection = transform.projection()

    np.testing.assert_allclose(projection.direction, [0.6, -0.8], atol=0.02)
    mean = maps.mean(axis=(0, 1, 2), dtype=np.float64)
    assert projection.offset == pytest.approx(mean @ projection.direction, abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_middle_of_a_3x3_map_is_its_centre(sign: int) -> None:
    """The direction points to the middle, whichever way the mean descriptor lies."""
    rng = np.random.default_rng(1)
    axis = np.array([0.6, -0.8])
    centre = np.zeros((3, 3))
    centre[1, 1] = sign
    maps = (centre[None] * rng.uniform(2, 3, (40, 1, 1)))[..., None] * axis - 5 * axis
    transform = DescriptorTransform()
    transform.add(maps.astype(np.float32))

    np.testing.assert_allclose(transform.projection().direction, sign * axis, atol=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_without_a_middle_the_mean_descriptor_is_above_zero(sign: int) -> None:
    rng = np.random.default_rng(2)
    axis = np.array([0.6, -0.8])
    maps = (sign * 5 + rng.normal(0, 1, (40, 2, 2)))[..., None] * axis
    transform = DescriptorTransform()
    transform.add(maps.astype(np.float32))

    np.testing.assert_allclose(transform.projection().direction, sign * axis, atol=1e-3)


def _random_boxes(rng: np.random.Generator, photos: int) -> list[list[Box]]:
    """One or two in each photo."""
    return [
        [
            (float(x[0]), float(y[0]), float(x[1]), float(y[1]))
            for x, y in np.sort(rng.random((int(rng.integers(1, 3)), 2, 2)), axis=-1)
        ]
        for _ in range(photos)
    ]


@pytest.mark.parametrize(("photos", "channels"), [(40, 6), (3, 60)], ids=["many", "too few"])
def test_ridge_regression_is_least_squares_with_the_penalty_as_rows(
    photos: int, channels: int
) -> None:
    """Of 27 descriptors of 60 channels alone, there would be many exact fits."""
    rng = np.random.default_rng(3)
    spread = rng.normal(0, 1, (channels, channels))
    maps = (rng.normal(0.5, 1, (photos, 3, 3, channels)) @ spread).astype(np.float32)
    boxes = _random_boxes(rng, photos)
    ridge = RidgeRegression()
    for begin, end in ((0, 1), (1, photos)):
        ridge.add(maps[begin:end], boxes[begin:end])

    projection = ridge.projection()

    X = maps.reshape(-1, channels).astype(np.float64)
    shares = (
        np.stack([box_shares(photo_boxes, 3, 3) for photo_boxes in boxes])
        .ravel()
        .astype(np.float64)
    )
    penalty = np.sqrt(PENALTY * X.var(axis=0).mean() * len(X)) * np.eye(channels)
    rows = np.block([[X, np.ones((len(X), 1))], [penalty, np.zeros((channels, 1))]])
    expected = np.linalg.lstsq(rows, np.concatenate([shares, np.zeros(channels)]))[0]
    scale = float(np.abs(expected[:-1]).max())
    np.testing.assert_allclose(projection.direction, expected[:-1], rtol=1e-3, atol=1e-4 * scale)
    assert projection.offset == pytest.approx(-expected[-1], abs=1e-3)


def test_ridge_regression_of_dead_channels_says_the_mean_share() -> None:
    ridge = RidgeRegression()
    ridge.add(np.zeros((2, 2, 2, 3), np.float32), [[(0, 0, 1, 1)], [(0, 0, 0.5, 1)]])

    projection = ridge.projection()

    np.testing.assert_array_equal(projection.direction, np.zeros(3))
    assert projection.offset == pytest.approx(-0.75)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], [[0, 0, 0, 0], [0, 0, 0, 0]]),
        ([(0, 0, 1, 1)], [[1, 1, 1, 1], [1, 1, 1, 1]]),
        # x from 0.5 to 3 of four cells, y from 0.5 to 1.5 of two
        ([(0.125, 0.25, 0.75, 0.75)], [[0.25, 0.5, 0.5, 0], [0.25, 0.5, 0.5, 0]]),
        # within one cell
        ([(0.3125, 0.125, 0.4375, 0.375)], [[0, 0.25, 0, 0], [0, 0, 0, 0]]),
        # overlapping: the better of the two in each cell, not their sum
        ([(0, 0, 0.375, 0.5), (0.25, 0, 0.75, 0.25)], [[1, 0.5, 0.5, 0], [0, 0, 0, 0]]),
        # partly, and wholly, outside
        ([(-1, -1, 0.25, 2), (1.25, 0, 2, 1)], [[1, 0, 0, 0], [1, 0, 0, 0]]),
    ],
    ids=["none", "whole", "fractions", "inside a cell", "overlapping", "outside"],
)
def test_box_shares_by_hand(boxes: list[Box], expected: list[list[float]]) -> None:
    np.testing.assert_allclose(box_shares(boxes, 2, 4), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("sizes", "fused"),
    [
        (
            {"conv4_5": (14, 14, 9), "conv4_6": (14, 14, 9), "conv5_1": (7, 7, 9), "last": (7, 7)},
            ("conv4_6", "last"),
        ),
        ({"a": (28, 28), "b": (14, 14), "c": (7, 7)}, ("b", "c")),
        ({"a": (7, 7), "b": (7, 7)}, ("b",)),
        ({"only": (7, 7)}, ("only",)),
    ],
    ids=["resnet", "pyramid", "one size", "one layer"],
)
def test_fused_layers(sizes: dict[str, tuple[int, ...]], fused: tuple[str, ...]) -> None:
    assert fused_layers(sizes) == fused


def test_channel_sum_is_a_unit_direction() -> None:
    projection = channel_sum(16)

    np.testing.assert_allclose(projection.direction, np.full(16, 0.25))
    assert projection.offset == 0
