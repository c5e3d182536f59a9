"""Timing in turn: each round runs every call, so that drift affects all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Call", "Spread", "interleave", "spread", "timed"]

Call = Callable[[], Sequence[float]]
"""Runs what is measured, once or a few times, and returns the milliseconds of each run."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of some numbers.

    Attributes:
        lower: first quartile.
        median: second quartile.
        upper: third quartile.
        count: number of values.
    """

    lower: float
    median: float
    upper: float
    count: int

    def scaled(self, factor: float) -> "Spread":
        """The spread of the numbers times `factor`."""
        lower, median, upper = (n * factor for n in (self.lower, self.median, self.upper))
        return Spread(lower, median, upper, self.count)

    def __str__(self) -> str:
        """The median, and the quartiles in brackets."""
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2
        lower, median, upper = (f"{n:.{digits}f}" for n in (self.lower, self.median, self.upper))
        return f"{median} ({lower} to {upper})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of one number or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(lower, median, upper, len(values))


def timed(call: Callable[[], object], count: int = 1) -> list[float]:
    """The milliseconds of `count` calls, one after the other."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return times


def interleave(calls: Mapping[str, Call], *, rounds: int) -> dict[str, Spread]:
    """The spread of each call's milliseconds over `rounds`, after a warm-up that is not counted."""
    for call in calls.values():
        call()  # compiles, and fills the caches
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += call()
    return {name: spread(values) for name, values in times.items()}
