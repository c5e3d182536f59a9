"""Where one request's time goes, and the deadline that ends it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from app.errors import DeadlineExceeded

__all__ = ["Clock", "deadline"]


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


class Clock:
    """Runs from its making; `laps_s` holds the seconds of each part by name."""

    def __init__(self) -> None:
        """Start."""
        self._begun = time.monotonic()
        self.laps_s: dict[str, float] = {}

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time a part."""
        begun = time.monotonic()
        yield
        self.laps_s[name] = time.monotonic() - begun

    @property
    def timings_ms(self) -> dict[str, float]:
        """The laps, and as `queue` all the waiting between them."""
        waited = time.monotonic() - self._begun - sum(self.laps_s.values())
        laps = self.laps_s | {"queue": max(0.0, waited)}
        order = ("decode", "queue", "inference", "render")
        return {name: round(1000 * laps[name], 3) for name in order if name in laps}
