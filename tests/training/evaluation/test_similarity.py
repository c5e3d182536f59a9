import numpy as np
import pytest

from training.evaluation.similarity import rank_correlation, structural_similarity

RISING = np.arange(12, dtype=np.float32).reshape(3, 4)
UNIFORM = np.full((3, 4), 0.5, np.float32)


def test_rank_correlation_of_equal_and_reversed_maps() -> None:
    assert rank_correlation(RISING, RISING**3) == pytest.approx(1)
    assert rank_correlation(RISING, -RISING) == pytest.approx(-1)


def test_rank_correlation_with_a_uniform_map_is_undefined() -> None:
    for a, b in ((RISING, UNIFORM), (UNIFORM, RISING), (UNIFORM, UNIFORM)):
        assert np.isnan(rank_correlation(a, b))


def test_rank_correlation_by_hand() -> None:
    a = np.array([[10, 20, 30, 40]], np.float32)

    # Without ties, 1 - 6 sum(d^2) / (n (n^2 - 1)): d = 1, 1, 0, 0.
    assert rank_correlation(a, np.array([[2, 1, 3, 4]], np.float32)) == pytest.approx(1 - 12 / 60)
    # Ranks 0.5, 0.5, 2, 3 against 0, 1, 2, 3.
    assert rank_correlation(a, np.array([[7, 7, 8, 9]], np.float32)) == pytest.approx(
        4.5 / np.sqrt(5 * 4.5)
    )


def test_structural_similarity_of_equal_maps_is_one() -> None:
    noise = np.random.default_rng(0).random((32, 32), np.float32)

    assert structural_similarity(noise, noise) == pytest.approx(1)
    assert structural_similarity(noise, noise[::-1]) < 0.2
    assert structural_similarity(noise, 1 - noise) < 0


def test_structural_similarity_is_the_mean_over_gaussian_windows() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((9, 12)).astype(np.float32), rng.random((9, 12)).astype(np.float32)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    padded = [np.pad(values.astype(np.float64), 5, mode="reflect") for values in (x, y)]
    expected = []
    for row, column in np.ndindex(x.shape):
        a, b = (values[row : row + 11, column : column + 11] for values in padded)
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        covariance = (window * (a - mean_a) * (b - mean_b)).sum()
        means = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        expected.append(means * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4))

    assert structural_similarity(x, y) == pytest.approx(np.mean(expected), rel=1e-6)


def test_structural_similarity_of_uniform_maps_by_hand() -> None:
    low, high = np.full((16, 16), 0.25, np.float32), np.full((16, 16), 0.75, np.float32)

    # Without variance, only the means speak: (2 ab + C1) / (a^2 + b^2 + C1).
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert structural_similarity(low, high) == pytest.approx(expected)
    assert structural_similarity(np.zeros_like(low), low) == pytest.approx(1e-4 / (0.0625 + 1e-4))
