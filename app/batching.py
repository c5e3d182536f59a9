"""A generic micro-batcher: one worker thread, many waiting coroutines. It knows nothing of images.

Each item ends in exactly one result, error or cancellation. A batch that fails is run again one
by one, so that only the poisonous item fails; cancelled items are dropped before the work sees
them. A deadline is the caller's, who cancels. Work that hangs cannot be stopped from here: see
`app.watchdog`.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.errors import EngineDown, EngineFailed, NotReady, QueueFull

__all__ = ["Batcher", "Outcome"]

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

_DEAD = "The thread that runs the model has died."


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """An item's result, and when its batch was run, from `begun` to `ended`: `time.monotonic`."""

    result: Result
    begun: float
    ended: float


@dataclass(eq=False, slots=True)
class _Job(Generic[Key, Item, Result]):
    key: Key
    item: Item
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome[Result]]

    def settle(self, outcome: Outcome[Result] | Exception) -> None:
        """Hand the outcome over to the waiting coroutine, from the worker's thread."""

        def deliver() -> None:
            if self.future.done():
                return
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        # A closed loop, which raises this, has nobody waiting on it.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(deliver)


class Batcher(Generic[Key, Item, Result]):
    """Collects items with equal keys and runs them together on its own thread."""

    def __init__(
        self,
        work: Callable[[Key, Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_batch: int,
        max_pending: int,
        wait_s: float = 0.0,
        tidy: Callable[[], bool] | None = None,
        tidy_s: float = 10.0,
    ) -> None:
        """Set it up; `start` starts the thread.

        Args:
            work: takes a key and 1 to `max_batch` items, gives as many results in their order;
                an exception among them is that one item's.
            max_batch: items in one call.
            max_pending: items waiting; where there are as many, no more are taken.
            wait_s: how long a batch that is not full waits to fill up.
            tidy: called on the worker's thread `tidy_s` after the start or a batch, and again as
                long as it returns True, whether or not other batches come in between.
            tidy_s: seconds between calls of `tidy`.
        """
        self._work = work
        self._tidy = tidy
        self._tidy_s = tidy_s
        self._tidy_at: float | None = None
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._wait_s = wait_s
        self._jobs: deque[_Job[Key, Item, Result]] = deque()
        self._last_key: Key | None = None
        self._changed = threading.Condition()
        self._open = False
        self._running: list[_Job[Key, Item, Result]] = []
        self._begun: float | None = None
        self._down: str | None = None
        self._thread = threading.Thread(target=self._loop, name="inference", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether items are taken and the worker runs."""
        return self._open and self.down is None

    @property
    def running_s(self) -> float:
        """Seconds that the work in progress has taken so far; 0 where there is none."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    @property
    def down(self) -> str | None:
        """Why the worker is given up for good; None while it is not."""
        if self._down is None and self._open and not self._thread.is_alive():
            return _DEAD
        return self._down

    @property
    def depth(self) -> int:
        """Items that wait; not those in the batch that is being run."""
        return len(self._jobs)

    def start(self) -> None:
        """Start the worker."""
        self._open = True
        if self._tidy is not None:  # whoever made it has run the work, to warm it up
            self._tidy_at = time.monotonic() + self._tidy_s
        self._thread.start()

    def stop(self, patience_s: float | None = None) -> bool:
        """Take no more items, finish those that wait, end the worker; blocks until it has.

        Args:
            patience_s: how long to wait for it; None: for ever.

        Returns:
            Whether it has ended. If not, the rest of the items fail.
        """
        with self._changed:
            self._open = False
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience_s)
        ended = not self._thread.is_alive()
        if not ended:
            self.abandon("The model did not finish before the service stopped.")
        return ended

    def abandon(self, reason: str) -> None:
        """Give the worker up: whoever waits gets `EngineDown` now, and so does whoever comes."""
        with self._changed:
            self._down = self._down or reason
            jobs = [*self._running, *self._jobs]
            self._jobs.clear()
        for job in jobs:
            job.settle(EngineDown(reason))

    async def submit(self, key: Key, items: Sequence[Item]) -> list[Outcome[Result]]:
        """Wait for the results of items that belong together, in their order.

        They take their turn one behind the other: in one batch, unless it is full before the last
        of them. Cancelling the wait gives back the places of all.

        Args:
            key: items are batched with others of the same key.
            items: what `work` takes. Where there is a place for one, there is for all of them.

        Raises:
            QueueFull: `max_pending` items wait already.
            NotReady: not started, or stopping.
            EngineDown: the worker hangs or has died.
            EngineFailed: `work` raised on one of these items, alone; the others are given up. What
                it raised is the cause; one that `work` itself gave as a result has none.
        """
        loop = asyncio.get_running_loop()
        jobs: list[_Job[Key, Item, Result]] = [
            _Job(key, item, loop, loop.create_future()) for item in items
        ]
        with self._changed:
            if self.down is not None:
                raise EngineDown(self.down)
            if not self.alive:
                raise NotReady("The service is not ready to run the model.")
            if len(self._jobs) >= self._max_pending:
                raise QueueFull("Too many requests are waiting for the model.")
            self._jobs.extend(jobs)
            self._changed.notify()
        try:
            return [await job.future for job in jobs]
        finally:
            for job in jobs:
                self._give_up(job)

    def _give_up(self, job: _Job[Key, Item, Result]) -> None:
        """Free the place of a job that nobody waits for any more, if it still waits."""
        job.future.cancel()
        if not job.future.cancelled():
            job.future.exception()  # of several that fail, only the first is raised
            return
        with self._changed, suppress(ValueError):
            self._jobs.remove(job)

    def _loop(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                if batch:
                    self._run(batch)
                    if self._tidy is not None and self._tidy_at is None:
                        self._tidy_at = time.monotonic() + self._tidy_s
                if self._tidy_in_s() == 0:
                    self._run_tidy()
        except BaseException:  # such as SystemExit, from a library
            self.abandon(_DEAD)
            log.exception("the inference thread has died")

    def _next_batch(self) -> list[_Job[Key, Item, Result]] | None:
        """Wait for work and take the next key's items, oldest first; None when stopped.

        It is empty where it is time to tidy up.

        Next is the key of the oldest item, but of those with another key than the last batch's
        where there are any: a key with many items or slow ones does not keep the others waiting.
        """
        with self._changed:
            self._running = []
            self._changed.wait_for(lambda: self._jobs or not self._open, self._tidy_in_s())
            if not self._jobs:
                return [] if self._open else None
            new_keys = (job.key for job in self._jobs if job.key != self._last_key)
            key = self._last_key = next(new_keys, self._jobs[0].key)
            if self._wait_s:
                self._changed.wait_for(self._no_need_to_wait, self._wait_s)
            batch: list[_Job[Key, Item, Result]] = []
            rest: deque[_Job[Key, Item, Result]] = deque()
            for job in self._jobs:
                if job.future.cancelled():  # its caller has not yet come to remove it
                    continue
                if job.key == key and len(batch) < self._max_batch:
                    batch.append(job)
                else:
                    rest.append(job)
            self._jobs, self._running = rest, batch
            return batch

    def _no_need_to_wait(self) -> bool:
        """Whether some batch is full, or nothing more will come."""
        waiting = Counter(job.key for job in self._jobs)
        return not self._open or max(waiting.values(), default=0) >= self._max_batch

    def _tidy_in_s(self) -> float | None:
        """Seconds until `tidy` is to be called; None: not before the next batch."""
        return None if self._tidy_at is None else max(0.0, self._tidy_at - time.monotonic())

    def _run_tidy(self) -> None:
        assert self._tidy is not None
        self._begun = time.monotonic()  # it is watched as work is
        try:
            again = self._tidy()
        except Exception:  # memory is saved, no answer depends on it
            log.exception("memory could not be given back")
            again = False
        finally:
            self._begun = None
        self._tidy_at = time.monotonic() + self._tidy_s if again else None

    def _run(self, batch: list[_Job[Key, Item, Result]]) -> None:
        self._begun = begun = time.monotonic()
        # Whatever the work raises must reach its callers, and must not end the thread.
        try:
            results = self._work(batch[0].key, [job.item for job in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:
            if len(batch) > 1:
                log.warning("a batch of %d failed and is run one by one: %r", len(batch), error)
                for job in batch:
                    if not job.future.done():
                        self._run([job])
                return
            log.exception("the model failed on one item")
            failed = EngineFailed("The model failed on this image.")
            # Without its frames, which hold the batch.
            failed.__cause__ = error.with_traceback(None)
            batch[0].settle(failed)
            return
        finally:
            self._begun = None
        ended = time.monotonic()
        for job, result in zip(batch, results, strict=True):
            job.settle(result if isinstance(result, Exception) else Outcome(result, begun, ended))
