import numpy as np
import pytest

from training.similarity import rank_correlation, structural_similarity

RISING = np.arange(12, dtype=np.float32).reshape(3, 4)
UNIFORM = np.full((3, 4), 0.5, np.float32)


def test_rank_correlation_of_equal_reversed_and_uniform_maps() -> None:
    assert rank_correlation(RISING, RISING**3) == pytest.approx(1)
    assert rank_correlation(RISING, -RISING) == pytest.approx(-1)
    assert rank_correlation(RISING, UNIFORM) == rank_correlation(UNIFORM, UNIFORM) == 0


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


def test_structural_similarity_of_uniform_maps_by_hand() -> None:
    low, high = np.full((16, 16), 0.25, np.float32), np.full((16, 16), 0.75, np.float32)

    # Without variance, only the means speak: (2 ab + C1) / (a^2 + b^2 + C1).
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert structural_similarity(low, high) == pytest.approx(expected)
    assert structural_similarity(np.zeros_like(low), low) == pytest.approx(1e-4 / (0.0625 + 1e-4))
