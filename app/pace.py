"""How fast a client sends its request or takes its answer."""

import asyncio

__all__ = ["MIN_RATE", "Pace"]

MIN_RATE = 1_000
"""Bytes a second that a client sends or takes, in each period of its deadline."""


class Pace:
    """How a client keeps up: `MIN_RATE` in each period.

    Attributes:
        moved_at: when the last bytes came or went, by the event loop's clock.
    """

    def __init__(self, period_s: float) -> None:
        """Start now; `period_s` in seconds."""
        self._period_s = period_s
        self._moved = 0
        self._since = self.moved_at = asyncio.get_running_loop().time()

    @property
    def until(self) -> float:
        """When the client is too slow."""
        return self._since + self._period_s

    def move(self, count: int) -> None:
        """So many bytes have come or gone."""
        if count <= 0:
            return
        self.moved_at = asyncio.get_running_loop().time()
        self._moved += count
        if self._moved >= MIN_RATE * self._period_s:
            self._moved = 0
            self._since = self.moved_at
