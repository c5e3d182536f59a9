"""A few threads for steps that take milliseconds; it knows nothing of images."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

__all__ = ["Threads", "outlast"]

P = ParamSpec("P")
T = TypeVar("T")


async def outlast(work: asyncio.Future[Any]) -> bool:
    """Wait for the end of the work, even while this is cancelled, as often as it may be.

    Returns:
        Whether it was. The caller looks at the work's result, and cancels itself.
    """
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


class Threads:
    """Runs steps beside the event loop; for use on one event loop at a time."""

    def __init__(self, count: int, name: str) -> None:
        """Set it up; threads start when they are needed.

        Args:
            count: steps that run at a time.
            name: what the threads' names start with.
        """
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._free = asyncio.Semaphore(count)

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step on a thread.

        Cancelled while it waits for a thread, it never begins; cancelled while it runs, as often as
        it may be, the wait goes on to its end: the thread still holds what it works on.
        """
        # Waiting here rather than in the pool's queue, a step that is cancelled is gone at once.
        async with self._free:
            work = asyncio.wrap_future(self._pool.submit(step, *args, **kwargs))
            if await outlast(work):
                work.exception()  # nobody else looks at it
                raise asyncio.CancelledError
            return work.result()

    def stop(self) -> None:
        """Take no more steps; blocks until those that run have ended."""
        self._pool.shutdown()
