import numpy as np
import pytest
from scipy.optimize import minimize  # type: ignore[import-untyped]

from app.preferences import Tally, strength_intervals, strengths, summarize, wilson


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


BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    float,
)
"""Milwaukee, Detroit, Toronto, New York, Boston, Cleveland and Baltimore in 1987: Agresti 2002,
Categorical Data Analysis, table 10.10."""


def test_strengths_are_the_published_ones() -> None:
    """Those of the R package BradleyTerry2 (Turner and Firth 2012, doi:10.18637/jss.v048.i09)."""
    fitted = strengths(BASEBALL)
    assert fitted is not None
    ability = np.log(fitted / fitted[-1])
    published = [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0]
    assert ability == pytest.approx(published, abs=5e-5)


def test_the_interval_of_two_is_that_of_log_odds() -> None:
    """The standard error is Woolf's (1955, doi:10.1111/j.1469-1809.1955.tb01348.x)."""
    wins = BASEBALL[:2, :2]
    fitted = strengths(wins)
    assert fitted is not None
    low, high = strength_intervals(wins, fitted)[0]
    expected = np.log(7 / 6) + np.array([-1, 1]) * 1.959964 * np.sqrt(1 / 7 + 1 / 6)
    assert np.log([low / (1 - low), high / (1 - high)]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_of_differences_of_the_likelihood(seed: int) -> None:
    wins = np.random.default_rng(seed).integers(1, 30, (4, 4)).astype(float)
    wins[0, 3] = wins[3, 0] = 0
    np.fill_diagonal(wins, 0)
    fitted = strengths(wins)
    assert fitted is not None
    best, step = np.log(fitted / fitted[-1])[:-1], 1e-3  # the last method is the reference

    def loss(free: np.ndarray) -> float:
        ability = np.append(free, 0.0)
        return float((wins * np.logaddexp(0, ability - ability[:, None])).sum())

    def logits(free: np.ndarray) -> np.ndarray:
        share = np.exp(np.append(free, 0.0))
        share /= share.sum()
        return np.asarray(np.log(share / (1 - share)))

    steps = np.eye(3) * step
    hessian = [
        [
            loss(best + one + two)
            - loss(best + one - two)
            - loss(best - one + two)
            + loss(best - one - two)
            for two in steps
        ]
        for one in steps
    ]
    covariance = np.linalg.inv(np.array(hessian) / (4 * step**2))
    slopes = np.array([logits(best + one) - logits(best - one) for one in steps]).T / (2 * step)
    error = np.sqrt(np.diag(slopes @ covariance @ slopes.T))
    low, high = strength_intervals(wins, fitted).T
    for bound, sign in ((low, -1), (high, 1)):
        expected = logits(best) + sign * 1.959964 * error
        assert np.log(bound / (1 - bound)) == pytest.approx(expected, abs=1e-4)


def test_intervals_hold_the_truth_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    truth = np.array([0.4, 0.3, 0.2, 0.1])
    upper = np.triu_indices(4, 1)
    held = []
    for _ in range(400):
        wins = np.zeros((4, 4))
        chance = truth[upper[0]] / (truth[upper[0]] + truth[upper[1]])
        wins[upper] = generator.binomial(40, chance)
        wins[upper[::-1]] = 40 - wins[upper]
        fitted = strengths(wins)
        assert fitted is not None
        low, high = strength_intervals(wins, fitted).T
        held.append((low <= truth) & (truth <= high))
    # 0.007 is the standard error of a share over 1600 intervals that count as 1000.
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


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
    wins = np.array([[0, 4, 1], [2, 0, 1], [1, 1, 0]], float)  # with halves of those that are same
    fitted = strengths(wins)
    assert fitted is not None
    assert [score.strength for score in summary.methods] == pytest.approx(fitted)
    bounds = [score.interval for score in summary.methods]
    assert np.array(bounds) == pytest.approx(strength_intervals(wins, fitted))


def test_two_methods_have_no_strengths_and_none_have_no_figures() -> None:
    two = summarize([Tally(("a", "b"), (3, 1), 0, (0, 0))], raters=1)
    scores = [(score.strength, score.interval) for score in two.methods]
    assert scores == [(None, None), (None, None)]
    assert summarize([], raters=0).model_dump() == {
        "ratings": 0,
        "raters": 0,
        "pairs": [],
        "methods": [],
    }
