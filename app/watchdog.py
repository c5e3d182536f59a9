"""Ends a process whose model hangs or whose inference thread has died, so that it is restarted.

    what hangs                             what ends the process
    the model, in code without the GIL     `Watchdog`, a task of the event loop
    the model, in code that holds the GIL  faulthandler's timer: a thread in C, without the GIL
    the event loop itself                  the same

The task sets the timer anew at each beat; without beats, it runs out. Nothing in Python could end
such a process: no other thread runs, no signal is handled.
"""

import asyncio
import faulthandler
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

__all__ = ["Watchdog", "Worker", "end_process"]

log = logging.getLogger(__name__)

_BEAT_S = 1.0
"""Between two looks; a beat takes about 0.1 ms."""

_GRACE_S = 1.0
"""For those who wait to be answered, before the process ends."""

_STDERR = 2  # by number, as `sys.stderr` may be closed or something else


class Worker(Protocol):
    """What is watched."""

    @property
    def running_s(self) -> float:
        """Seconds that the work in progress has taken so far."""
        ...

    @property
    def down(self) -> str | None:
        """Why it is given up for good; None while it is not."""
        ...

    def abandon(self, reason: str) -> None:
        """Let all who wait know, and take no more work."""
        ...


class Watchdog:
    """Watches a worker from the event loop."""

    def __init__(
        self, worker: Worker, *, limit_s: float, end: Callable[[], None] | None = None
    ) -> None:
        """Set it up; `watching` watches.

        Args:
            worker: what is watched.
            limit_s: work that takes longer hangs.
            end: ends the process; None where the process is not the service's own: there, a worker
                that hangs is only abandoned, and `/livez` says so.
        """
        self._worker = worker
        self._limit_s = limit_s
        self._end = end
        self._beat_s = min(_BEAT_S, limit_s / 4)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if self._end is not None:
                faulthandler.cancel_dump_traceback_later()

    async def _watch(self) -> None:
        while True:
            if self._end is not None:
                faulthandler.dump_traceback_later(self._limit_s, exit=True, file=_STDERR)
            if reason := self._fault():
                break
            await asyncio.sleep(self._beat_s)
        self._worker.abandon(reason)
        log.critical("%s The service has to be restarted.", reason)
        if self._end is not None:
            await asyncio.sleep(_GRACE_S)
            self._end()

    def _fault(self) -> str | None:
        """What is wrong with the worker; None where nothing is."""
        if self._worker.running_s > self._limit_s:
            return f"The model has not answered for {self._limit_s:g} s."
        return self._worker.down


def end_process() -> None:
    """End this process at once, with status 1, whatever its threads do."""
    faulthandler.dump_traceback(file=_STDERR)  # where they are
    os._exit(1)
