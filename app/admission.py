"""How much is let in: requests in work, and the bytes they hold."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from app.errors import QueueFull

__all__ = ["NO_PLACE", "Admission"]

NO_PLACE = "The service is handling as many requests as it allows."


class Admission:
    """Places and bytes, for use on one event loop.

    A photo's bytes are held from their arrival until its work is done or dropped, an answer's until
    the last of them is sent.

    Attributes:
        make_room: called with the bytes that are lacking: ends a request whose client keeps bytes
            and does nothing, and returns whether there was one. None where nothing can be ended.
    """

    def __init__(self, max_pending: int, max_bytes: int) -> None:
        """Set the bounds.

        Args:
            max_pending: requests in work at once.
            max_bytes: bytes of the photos that are being read or in work, and of the answers that
                are being sent.
        """
        self._max_places = max_pending
        self._max_bytes = max_bytes
        self._admitted = 0
        self._held_bytes = 0
        self.make_room: Callable[[int], Awaitable[bool]] | None = None

    # -- places

    @property
    def admitted(self) -> int:
        """Requests that hold a place."""
        return self._admitted

    @property
    def held_bytes(self) -> int:
        """Bytes of the bodies that are being read or in work, and of the answers being sent."""
        return self._held_bytes

    @property
    def busy(self) -> bool:
        """Whether any place is taken."""
        return self._admitted > 0

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return self._admitted >= self._max_places

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the `max_pending` places.

        Raises:
            QueueFull: there is none.
        """
        self.check_room()
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    def check_room(self) -> None:
        """Refuse a request before its body is read, where its place is not to be had anyway.

        Raises:
            QueueFull: every place is taken.
        """
        if self.full:
            raise QueueFull(NO_PLACE)

    # -- bytes

    @contextmanager
    def hold_bytes(self) -> Iterator[Callable[[int], Awaitable[None]]]:
        """Account for bytes while the block runs: await the call with the size of each chunk.

        A body holds what has arrived of it, so that a client that sends nothing holds nothing.

        Raises:
            QueueFull: (from the call) there is no room for so many, and none can be made.
        """
        held = 0

        async def take(size: int) -> None:
            nonlocal held
            while (lacking := self._held_bytes + size - self._max_bytes) > 0:
                make_room = self.make_room if size <= self._max_bytes else None
                if make_room is None or not await make_room(lacking):
                    raise QueueFull(
                        "The requests in work fill the memory that is set aside for them."
                    )
            self._held_bytes += size
            held += size

        try:
            yield take
        finally:
            self._held_bytes -= held
