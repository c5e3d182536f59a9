"""What raters prefer: counts of pairs, intervals, and Bradley-Terry strengths.

It knows neither HTTP nor the file in which ratings are kept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

__all__ = [
    "MethodScore",
    "Pair",
    "Summary",
    "Tally",
    "strength_intervals",
    "strengths",
    "summarize",
    "wilson",
]

_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
_STEPS = 10_000
_CLOSE = 1e-10  # largest change of a strength's logarithm in the last step


class Tally(NamedTuple):
    """Ratings of two methods, in the alphabetical order of their names.

    Attributes:
        methods: the names.
        wins: how often each explains better.
        same: how often neither does.
        misses: how often each misses the dog.
    """

    methods: tuple[str, str]
    wins: tuple[int, int]
    same: int
    misses: tuple[int, int]


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class Pair(_Figures):
    """Two methods beside each other."""

    methods: tuple[str, str]
    wins: tuple[int, int]
    same: int
    win_rate: float | None
    """Share of the first method's wins in those of both; None without any."""
    interval: tuple[float, float] | None
    """Of the win rate, 95 %."""


class MethodScore(_Figures):
    """One method over all pairs."""

    method: str
    shown: int
    misses: int
    strength: float | None
    """Bradley-Terry; all of them sum to 1. None for two methods, or where there is no estimate."""
    interval: tuple[float, float] | None
    """Of the strength, 95 %."""


class Summary(_Figures):
    """What the ratings of one model version say."""

    ratings: int
    raters: int
    pairs: list[Pair]
    methods: list[MethodScore]


def wilson(wins: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Args:
        wins: 0 to `trials`.
        trials: at least 1; they count as independent.
    """
    share, weight = wins / trials, _Z**2 / trials
    centre = share + weight / 2
    spread = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    low, high = ((centre + sign * spread) / (1 + weight) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def strengths(wins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """The maximum-likelihood strengths of the Bradley-Terry model.

    A method of strength p wins over one of strength q with the probability p / (p + q). The MM
    algorithm finds them (Hunter 2004, Annals of Statistics 32(1), 384-406, equation 3).

    Args:
        wins: `[n, n]`, wins of the row's method over the column's; the diagonal is 0.

    Returns:
        `[n]`, with a sum of 1; None where there is no maximum: some methods never win against any
        of the others (Hunter's assumption 1), or the steps do not converge.
    """
    count = len(wins)
    reach = (wins > 0) | np.eye(count, dtype=bool)
    for _ in range(count):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    if not reach.all():
        return None
    games = wins + wins.T  # [n, n]
    total = wins.sum(axis=1)  # [n]
    strength: npt.NDArray[np.float64] = np.full(count, 1 / count)
    for _ in range(_STEPS):
        # p_i = W_i / sum_j N_ij / (p_i + p_j)
        after: npt.NDArray[np.float64] = total / (games / (strength[:, None] + strength)).sum(
            axis=1
        )
        after /= after.sum()
        change = np.abs(np.log(after / strength)).max()
        strength = after
        if change < _CLOSE:
            return strength
    return None


def strength_intervals(
    wins: npt.NDArray[np.float64], strength: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """95 % intervals of Bradley-Terry strengths, from the observed information.

    They are normal on the logit scale, hence within 0 and 1, and need no method of reference: a
    strength is a share of the sum over all. For two methods, one is that of the log odds of
    winning, whose standard error is 1 / sqrt(N p q).

    Args:
        wins: `[n, n]`, see `strengths`; games count as independent.
        strength: `[n]`, what `strengths` returned of them.

    Returns:
        `[n, 2]`, low and high.
    """
    # The log-likelihood's second derivatives by the logarithms of the strengths, times -1:
    # -N_ij p_i p_j / (p_i + p_j)^2 off the diagonal, and what makes the sum of a row 0 on it.
    information = -(wins + wins.T) * np.outer(strength, strength)
    information /= (strength[:, None] + strength) ** 2
    information -= np.diag(information.sum(axis=1))  # [n, n]
    # The derivatives of logit p_i: 1 by log p_i, and -p_j / (1 - p_i) by log p_j.
    gradient = -strength / (1 - strength)[:, None]  # [n, n]
    np.fill_diagonal(gradient, 1)
    # A factor for all strengths changes nothing: the information is singular along it, and each
    # row of the gradient is orthogonal to it. So what is added along it changes nothing, either.
    along = information.trace() / len(strength) ** 2
    covariance = np.linalg.inv(information + along)
    error = np.sqrt(((gradient @ covariance) * gradient).sum(axis=1))  # [n]
    logit = np.log(strength / (1 - strength))
    ends = np.stack([logit - _Z * error, logit + _Z * error], axis=1)
    bounds: npt.NDArray[np.float64] = 1 / (1 + np.exp(-ends))
    return bounds


def summarize(tallies: Sequence[Tally], raters: int) -> Summary:
    """The summary of these pairs, each of which comes once.

    In the strengths and their intervals, "the same" counts as half a win for either method.
    """
    names = sorted({name for tally in tallies for name in tally.methods})
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    shown, misses = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    pairs = []
    for tally in tallies:
        first, second = (place[name] for name in tally.methods)
        wins[first, second] += tally.wins[0] + tally.same / 2
        wins[second, first] += tally.wins[1] + tally.same / 2
        for name, count in zip(tally.methods, tally.misses, strict=True):
            shown[name] += sum(tally.wins) + tally.same
            misses[name] += count
        decided = sum(tally.wins)
        pairs.append(
            Pair(
                methods=tally.methods,
                wins=tally.wins,
                same=tally.same,
                win_rate=tally.wins[0] / decided if decided else None,
                interval=wilson(tally.wins[0], decided) if decided else None,
            )
        )
    fitted = strengths(wins) if len(names) > 2 else None
    bounds = None if fitted is None else strength_intervals(wins, fitted).tolist()
    return Summary(
        ratings=sum(sum(tally.wins) + tally.same for tally in tallies),
        raters=raters,
        pairs=pairs,
        methods=[
            MethodScore(
                method=name,
                shown=shown[name],
                misses=misses[name],
                strength=None if fitted is None else float(fitted[place[name]]),
                interval=None if bounds is None else bounds[place[name]],
            )
            for name in names
        ],
    )
