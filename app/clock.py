"""Where one request's time goes, and how much it has left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock"]


class Clock:
    """Runs from its making; `laps_s` holds the seconds of each part by name."""

    def __init__(self, remaining_s: float) -> None:
        """Start with so many seconds left."""
        self._begun = time.monotonic()
        self._end = self._begun + remaining_s
        self.laps_s: dict[str, float] = {}

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(0.0, self._end - time.monotonic())

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
