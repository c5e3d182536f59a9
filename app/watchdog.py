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
    """What is watched: a version of the model, which may come and go."""

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
    """Watches workers from the event loop."""

    def __init__(self, limit_s: float) -> None:
        """Set it up; `watching` watches.

        Args:
            limit_s: work that takes longer hangs.
        """
        self._limit_s = limit_s
        self._beat_s = min(_BEAT_S, limit_s / 4)
        self._workers: list[Worker] = []

    def watch(self, worker: Worker) -> None:
        """Look after one more."""
        self._workers.append(worker)

    def forget(self, worker: Worker) -> None:
        """Stop watching a worker, if it is watched."""
        with suppress(ValueError):
            self._workers.remove(worker)

    @asynccontextmanager
    async def watching(self, end: Callable[[], None] | None) -> AsyncIterator[None]:
        """Watch while the block runs.

        Args:
            end: ends the process; None where the process is not the service's own: there, a worker
                that hangs is only abandoned, and `/livez` says so.
        """
        task = asyncio.create_task(self._watch(end))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if end is not None:
                faulthandler.cancel_dump_traceback_later()

    async def _watch(self, end: Callable[[], None] | None) -> None:
        while True:
            if end is not None:
                faulthandler.dump_traceback_later(self._limit_s, exit=True, file=_STDERR)
            for worker in list(self._workers):
                if reason := self._fault(worker):
                    worker.abandon(reason)
                    self.forget(worker)
                    log.critical("%s The service has to be restarted.", reason)
                    if end is not None:
                        await asyncio.sleep(_GRACE_S)
                        end()
            await asyncio.sleep(self._beat_s)

    def _fault(self, worker: Worker) -> str | None:
        """What is wrong with a worker; None where nothing is."""
        if worker.running_s > self._limit_s:
            return f"The model has not answered for {self._limit_s:g} s."
        return worker.down


def end_process() -> None:
    """End this process at once, with status 1, whatever its threads do."""
    faulthandler.dump_traceback(file=_STDERR)  # where they are
    os._exit(1)
