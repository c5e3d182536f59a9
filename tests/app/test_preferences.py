import numpy as np
import pytest
from scipy.optimize import minimize  # type: ignore[import-untyped]

from app.preferences import Tally, strengths, summarize, wilson


@pytest.mark.parametrize(
    ("wins", "trials", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_one(wins: int, trials: int, low: float, high: float) -> None:
    assert wilson(wins, trials) == pytest.approx((low, high), abs=5e-5)


def test_two_strengths_are_the_shares_of_wins() -> None:
    fitted = strengths(np.array([[0.0, 3.0], [1.0, 0.0]]))
    assert fitted == pytest.approx([0.75, 0.25], abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_strengths_are_those_of_a_general_optimizer(seed: int) -> None:
    generator = np.random.default_rng(seed)
    wins = generator.integers(1, 30, (4, 4)).astype(float)
    wins[0, 3] = wins[3, 0] = 0  # a pair that nobody has seen
    np.fill_diagonal(wins, 0)

    def loss(free: np.ndarray) -> float:
        ability = np.append(free, 0.0)
        gaps = ability[None, :] - ability[:, None]
        return float((wins * np.logaddexp(0, gaps)).sum())

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x
    expected = np.exp(np.append(best, 0.0))
    assert strengths(wins) == pytest.approx(expected / expected.sum(), rel=1e-4)


def test_without_a_maximum_there_are_no_strengths() -> None:
    never_wins = np.array([[0.0, 2.0, 2.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    apart = np.array([[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0]], float)
    assert strengths(never_wins) is None
    assert strengths(apart) is None


def test_summary() -> None:
    summary = summarize(
        [
            Tally(("a", "b"), (3, 1), 2, (0, 4)),
            Tally(("a", "c"), (0, 0), 2, (1, 1)),
            Tally(("b", "c"), (1, 1), 0, (0, 0)),
        ],
        raters=2,
    )
    assert (summary.ratings, summary.raters) == (10, 2)
    assert [pair.win_rate for pair in summary.pairs] == [0.75, None, 0.5]
    assert summary.pairs[0].interval == pytest.approx(wilson(3, 4))
    assert summary.pairs[1].interval is None
    assert [(score.shown, score.misses) for score in summary.methods] == [(8, 1), (8, 4), (4, 1)]
    halves = strengths(np.array([[0, 4, 1], [2, 0, 1], [1, 1, 0]], float))
    assert [score.strength for score in summary.methods] == pytest.approx(halves)


def test_two_methods_have_no_strengths_and_none_have_no_figures() -> None:
    two = summarize([Tally(("a", "b"), (3, 1), 0, (0, 0))], raters=1)
    assert [score.strength for score in two.methods] == [None, None]
    assert summarize([], raters=0).model_dump() == {
        "ratings": 0,
        "raters": 0,
        "pairs": [],
        "methods": [],
    }
