import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from training import methods
from training.novelty import DIMENSIONS, Subspace, principal_subspace

Floats = npt.NDArray[np.float64]


def _features(rng: np.random.Generator, count: int, width: int) -> npt.NDArray[np.float32]:
    """They vary less and less from one direction to the next; far from the origin."""
    turned = np.linalg.qr(rng.normal(0, 1, (width, width))).Q
    spread = 0.7 ** np.arange(width)
    features: Floats = rng.normal(0, 1, (count, width)) * spread @ turned + 3
    return features.astype(np.float32)


def _found(features: Floats, subspace: Subspace) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = methods.novelty(
        tf.constant(features, tf.float32), subspace.mean, subspace.basis
    ).numpy()
    return found


def test_subspace_is_that_of_the_first_singular_vectors() -> None:
    features = _features(np.random.default_rng(0), 60, 12)

    subspace = principal_subspace(features)

    assert subspace is not None
    centred = features - features.mean(axis=0, dtype=np.float64)
    first = np.linalg.svd(centred, full_matrices=False).Vh[:6]
    np.testing.assert_allclose(subspace.mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(subspace.basis.T @ subspace.basis, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(subspace.basis @ subspace.basis.T, first.T @ first, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "width", "dimensions"),
    [(4, 2, 1), (43, 100, 10), (1000, 7, 3), (4 * DIMENSIONS + 8, 2 * DIMENSIONS + 9, DIMENSIONS)],
)
def test_dimensions(count: int, width: int, dimensions: int) -> None:
    subspace = principal_subspace(_features(np.random.default_rng(1), count, width))

    assert subspace is not None
    assert subspace.basis.shape == (width, dimensions)
    assert subspace.mean.dtype == subspace.basis.dtype == np.float32


@pytest.mark.parametrize(("count", "width"), [(3, 10), (0, 10), (100, 1)])
def test_too_few_photos_or_features(count: int, width: int) -> None:
    assert principal_subspace(np.ones((count, width), np.float32)) is None


def test_novelty_is_what_least_squares_leave() -> None:
    rng = np.random.default_rng(2)
    subspace = principal_subspace(_features(rng, 80, 10))
    assert subspace is not None
    features = rng.normal(0, 4, (30, 10))

    found = _found(features, subspace)

    centred = features.T - subspace.mean[:, None]
    _, left, *_ = np.linalg.lstsq(subspace.basis.astype(np.float64), centred)
    np.testing.assert_allclose(found, np.sqrt(left), rtol=1e-5)


def test_novelty_is_zero_inside_and_grows_by_pythagoras() -> None:
    rng = np.random.default_rng(3)
    subspace = principal_subspace(_features(rng, 80, 10))
    assert subspace is not None
    inside = subspace.mean + rng.normal(0, 5, (8, 5)) @ subspace.basis.T
    beside = rng.normal(0, 1, 10)
    beside -= subspace.basis @ (subspace.basis.T @ beside)
    beside /= np.linalg.norm(beside)

    np.testing.assert_allclose(_found(inside, subspace), 0, atol=1e-4)
    np.testing.assert_allclose(_found(inside + 2.5 * beside, subspace), 2.5, rtol=1e-4)
    # inside^2 + novelty^2 is the distance from the mean, squared
    features = rng.normal(0, 4, (8, 10))
    within = np.linalg.norm((features - subspace.mean) @ subspace.basis, axis=1)
    np.testing.assert_allclose(
        np.hypot(within, _found(features, subspace)),
        np.linalg.norm(features - subspace.mean, axis=1),
        rtol=1e-5,
    )


def test_half_precision_holds_what_is_very_novel() -> None:
    """As a GPU computes it, through XLA."""
    far = tf.fill((1, 2048), tf.constant(20, tf.float16))  # a sum of squares is over 800,000
    basis = tf.constant(np.eye(2048, 1), tf.float16)

    compiled = tf.function(methods.novelty, jit_compile=True)
    found = compiled(far, tf.zeros(2048, tf.float16), basis)

    assert found.numpy() == pytest.approx(20 * np.sqrt(2047), rel=2e-3)
