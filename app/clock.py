"""Where one request's time goes, and the deadline that ends it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from app.errors import DeadlineExceeded

__all__ = ["STAGES", "Clock", "Lap", "deadline"]

STAGES = ("decode", "queue", "inference", "render")
"""The parts of a request's time, in their order; `queue` is all the waiting between the others."""


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Cancel what is awaited in the block when its time is over.

    The only place that limits a request's time: what is cancelled gives back its place in the
    queue, and the model does not see it.

    Raises:
        DeadlineExceeded: the block took longer.
    """
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise DeadlineExceeded(
            f"There was no answer within {seconds:g} s of the request's arrival."
        ) from error


class Lap(NamedTuple):
    """A part of a request's time, from `begun` to `ended`: seconds of `time.monotonic`."""

    name: str
    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.begun


class Clock:
    """Runs from its making until `stop`; keeps the laps between."""

    def __init__(self) -> None:
        """Start."""
        self._begun = time.monotonic()
        self._ended: float | None = None
        self._laps: list[Lap] = []

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time a part, whether it succeeds or fails."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.add(name, begun, time.monotonic())

    def add(self, name: str, begun: float, ended: float) -> None:
        """Add a part that was timed elsewhere, by `time.monotonic`."""
        self._laps.append(Lap(name, begun, ended))

    def stop(self) -> None:
        """End the time; a clock that has stopped stays as it is."""
        if self._ended is None:
            self._ended = time.monotonic()

    @property
    def laps(self) -> list[Lap]:
        """The laps in order, and as `queue` each time of waiting before, between and after them."""
        ended = time.monotonic() if self._ended is None else self._ended
        laps: list[Lap] = []
        covered = self._begun
        for lap in sorted(self._laps, key=lambda lap: lap.begun):
            if lap.begun > covered:
                laps.append(Lap("queue", covered, lap.begun))
            laps.append(lap)
            covered = max(covered, lap.ended)
        if ended > covered:
            laps.append(Lap("queue", covered, ended))
        return laps

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds of each stage that was run, in the order of `STAGES`; `queue` always."""
        ended = time.monotonic() if self._ended is None else self._ended
        stages = {"queue": ended - self._begun}
        for name, begun, ended in self._laps:
            stages[name] = stages.get(name, 0.0) + ended - begun
            stages["queue"] -= ended - begun
        stages["queue"] = max(0.0, stages["queue"])
        return {stage: stages[stage] for stage in STAGES if stage in stages}

    @property
    def timings_ms(self) -> dict[str, float]:
        """`stages_s` in milliseconds, as an answer has them; stops the clock."""
        self.stop()
        return {stage: round(1000 * seconds, 3) for stage, seconds in self.stages_s.items()}
