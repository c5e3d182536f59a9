"""Novelty against singular vectors and least squares."""

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from training.export.novelty import DIMENSIONS, DIRECTIONS, Residual, residual
from training.graph import methods

Floats = npt.NDArray[np.float64]


def _features(rng: np.random.Generator, count: int, width: int) -> npt.NDArray[np.float32]:
    """They vary less and less from one direction to the next; far from the origin."""
    turned = np.linalg.qr(rng.normal(0, 1, (width, width))).Q
    spread = 0.7 ** np.arange(width)
    features: Floats = rng.normal(0, 1, (count, width)) * spread @ turned + 3
    return features.astype(np.float32)


def _novelty(features: Floats, measured: Residual) -> npt.NDArray[np.float32]:
    novelty: npt.NDArray[np.float32] = methods.novelty(
        tf.constant(features, tf.float32), measured.directions, measured.offset
    ).numpy()
    return novelty


def _residual(features: npt.NDArray[np.float32], seed: int = 0) -> Residual:
    measured = residual(features, seed)
    assert measured is not None
    return measured


def _left(features: Floats, training: npt.NDArray[np.float32], dimensions: int) -> Floats:
    """What the first singular vectors of the training photos' features leave."""
    mean = training.mean(axis=0, dtype=np.float64)
    first = np.linalg.svd(training - mean, full_matrices=False).Vh[:dimensions].T
    squares: Floats
    _, squares, *_ = np.linalg.lstsq(first, (features - mean).T)
    lengths: Floats = np.sqrt(squares)
    return lengths


@pytest.mark.parametrize(
    ("count", "width", "dimensions", "directions"),
    [
        (4, 2, 1, 1),
        (43, 100, 10, 90),
        (1000, 7, 3, 4),
        (4 * DIMENSIONS + 8, 2 * DIMENSIONS + 9, DIMENSIONS, DIRECTIONS),
    ],
)
def test_directions_are_orthogonal_of_equal_length_and_beside_the_subspace(
    count: int, width: int, dimensions: int, directions: int
) -> None:
    training = _features(np.random.default_rng(1), count, width)

    measured = _residual(training)

    assert measured.dimensions == dimensions
    assert measured.directions.shape == (width, directions)
    assert measured.directions.dtype == measured.offset.dtype == np.float32
    square = (width - dimensions) / directions
    np.testing.assert_allclose(
        measured.directions.T @ measured.directions, square * np.eye(directions), atol=1e-5 * square
    )
    mean = training.mean(axis=0, dtype=np.float64)
    principal = np.linalg.svd(training - mean, full_matrices=False).Vh[:dimensions]
    # The first 30 at most: of features as float32, rounding decides which directions come later.
    np.testing.assert_allclose(principal[:30] @ measured.directions, 0, atol=1e-3)
    np.testing.assert_allclose(measured.offset, mean @ measured.directions, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "width"), [(3, 10), (0, 10), (100, 1)])
def test_too_few_photos_or_features(count: int, width: int) -> None:
    assert residual(np.ones((count, width), np.float32)) is None


def test_few_directions_are_measured_all() -> None:
    """Then novelty is what least squares leave."""
    rng = np.random.default_rng(2)
    training = _features(rng, 80, 10)
    features = rng.normal(0, 4, (30, 10))

    actual = _novelty(features, _residual(training))

    np.testing.assert_allclose(actual, _left(features, training, 5), rtol=1e-4)


def test_novelty_is_zero_inside_and_grows_by_pythagoras() -> None:
    rng = np.random.default_rng(3)
    training = _features(rng, 80, 10)
    measured = _residual(training)
    mean = training.mean(axis=0, dtype=np.float64)
    basis = np.linalg.svd(training - mean, full_matrices=False).Vh[:5].T
    inside = mean + rng.normal(0, 5, (8, 5)) @ basis.T
    beside = rng.normal(0, 1, 10)
    beside -= basis @ (basis.T @ beside)
    beside /= np.linalg.norm(beside)

    np.testing.assert_allclose(_novelty(inside, measured), 0, atol=1e-4)
    np.testing.assert_allclose(_novelty(inside + 2.5 * beside, measured), 2.5, rtol=1e-4)
    # inside^2 + novelty^2 is the distance from the mean, squared
    features = rng.normal(0, 4, (8, 10))
    within = np.linalg.norm((features - mean) @ basis, axis=1)
    np.testing.assert_allclose(
        np.hypot(within, _novelty(features, measured)),
        np.linalg.norm(features - mean, axis=1),
        rtol=1e-4,
    )


def test_of_many_directions_some_estimate_the_length() -> None:
    """By Johnson and Lindenstrauss: right in the mean, with a known spread."""
    rng = np.random.default_rng(4)
    training = _features(rng, 200, 300)
    features = rng.normal(0, 4, (1, 300))
    true = _left(features, training, 50)

    shares = [(_novelty(features, _residual(training, seed)) / true) ** 2 for seed in range(12)]

    spread = np.sqrt(2 / DIRECTIONS)  # of one square, at most
    assert np.mean(shares) == pytest.approx(1, abs=3 * spread / np.sqrt(12))
    assert 0.3 * spread < np.std(shares) < 1.5 * spread


def test_directions_do_not_depend_on_the_photos_order() -> None:
    rng = np.random.default_rng(5)
    strong = rng.normal(0, 5, (200, 50)) @ rng.normal(0, 1, (50, 300))
    training = (strong + rng.normal(3, 0.1, (200, 300))).astype(np.float32)

    forwards, backwards = _residual(training), _residual(training[::-1])

    np.testing.assert_allclose(backwards.directions, forwards.directions, atol=1e-4)
    np.testing.assert_allclose(backwards.offset, forwards.offset, atol=1e-3)


def test_half_precision_holds_what_is_very_novel() -> None:
    """As a GPU computes it, through XLA."""
    training = np.zeros((4, 512), np.float32)
    training[:, 0] = [-3, -1, 1, 3]
    measured = _residual(training)
    far = np.full((1, 512), 20, np.float16)  # a sum of squares is over 200,000
    expected = np.linalg.norm(far.astype(np.float64) @ measured.directions)

    compiled = tf.function(methods.novelty, jit_compile=True)
    actual = compiled(
        tf.constant(far),
        tf.cast(measured.directions, tf.float16),
        tf.cast(measured.offset, tf.float16),
    )

    assert expected == pytest.approx(20 * np.sqrt(511), rel=0.25)
    assert actual.numpy() == pytest.approx(expected, rel=5e-3)
