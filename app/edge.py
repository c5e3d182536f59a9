"""All connections: how many there may be, and which has to go where others need its place."""

import logging
from typing import Protocol

from app.metrics import Metrics
from app.refusal import Refusal
from app.settings import Settings

__all__ = ["STALLED_S", "Client", "Edge"]

log = logging.getLogger(__name__)

STALLED_S = 1.0
"""A client that has done so little for so long may be ended, where others need its place."""

REFUSED = 64
"""Connections beyond `max_connections` that are answered 503 at once; others are cut off."""


class Client(Protocol):
    """What the edge knows of a connection."""

    @property
    def may_go(self) -> bool:
        """Whether nothing is lost with it."""

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Of those that may go, the least goes first."""

    @property
    def stalled_s(self) -> float:
        """For how long its client keeps its request waiting."""

    @property
    def held_bytes(self) -> int:
        """Of its body or its answer."""

    async def give_up(self) -> None:
        """End its request, whose client does nothing; returns when its bytes are free."""

    def abort(self) -> None:
        """Cut it off."""


class Edge:
    """All connections: how many there may be, and which has to go where others need its place.

    Attributes:
        settings: the service's.
        metrics: what is counted.
        refusal: refuses requests early; None where none are.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        """Take the limits from the settings.

        Args:
            settings: all of them.
            metrics: what is counted; default: its own.
        """
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.refusal: Refusal | None = None
        self.metrics.connections(lambda: len(self._open), settings.max_connections)
        self._open: set[Client] = set()
        self._refused: set[Client] = set()

    def admit(self, connection: Client) -> bool:
        """Whether there is a place for one more. One that does nothing makes way for it."""
        if len(self._open) >= self.settings.max_connections:
            # First those that only wait for their client to close, then those that have not yet
            # sent a request, then those between two.
            idle = [other for other in self._open if other.may_go]
            if not idle:
                self._refused.add(connection)
                return False
            first = min(idle, key=lambda other: other.rank)
            self._open.discard(first)
            first.abort()
        self._open.add(connection)
        return True

    @property
    def overrun(self) -> bool:
        """Whether there are too many even of those that are refused."""
        return len(self._refused) > REFUSED

    def forget(self, connection: Client) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._refused.discard(connection)

    async def make_room(self, size: int) -> bool:
        """End the request that keeps the most bytes for the longest while its client does nothing.

        Args:
            size: the bytes that are lacking.

        Returns:
            Whether there was one. None is ended where all of them together do not keep so much.
        """
        stalled = [
            other for other in self._open if other.held_bytes and other.stalled_s >= STALLED_S
        ]
        if not stalled or sum(other.held_bytes for other in stalled) < size:
            return False
        worst = max(stalled, key=lambda other: other.held_bytes * other.stalled_s)
        log.info("a slow client is ended: the memory is needed")
        await worst.give_up()
        return True
