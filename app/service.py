"""What is started, warmed, watched and stopped together: model, decoders, threads.

The model is the version in service (`app.model`). Decoders are processes that make pixels of bytes
(`app.decoding`). Threads draw and write JSON. An `Explainer` leads a photo through all of them; the
`Admission` decides whether it may enter.

The model may be replaced while requests come:

    replace   another version is loaded and warmed beside the one in service, then `explainer` is
              the new one's: requests from then on are answered by it
    retire    the one before is stopped and freed when its last request has ended

Decoders, threads, admission and metrics stay.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from app import heap, overlay
from app.admission import Admission
from app.clock import Clock
from app.decoding import Decoders
from app.errors import DeadlineExceeded, StartupError
from app.explainer import Explainer
from app.metrics import Metrics
from app.model import Model
from app.schemas import CompareQuery, GradcamQuery, PredictQuery
from app.settings import Settings
from app.threads import Threads
from app.watchdog import Watchdog

__all__ = ["STOP_S", "Service"]

log = logging.getLogger(__name__)

STOP_S = 6.0
"""From the deadline of the last requests to the end of the threads, whatever else ends meanwhile:
late requests are answered 504 for a second, and a rating waits for its file."""

_LAST_S = 1.0
"""Of that, for what follows the end of the models' threads."""


class Service:
    """A model in service, one version at a time.

    Attributes:
        settings: the service's.
        admission: who may enter.
        metrics: what is counted; `/metrics` shows them.
        observers: called on the event loop with the stopped clock of every photo, whether it was
            answered or failed.
        explainer: answers requests, once the service is started. It is another after `replace`: a
            request takes it once, and holds it to its end (`Explainer.held`).
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        *,
        decoders: Decoders | None = None,
        warm: bool = True,
        metrics: Metrics | None = None,
    ) -> None:
        """Put a loaded model into service; `running` starts its threads and processes.

        Args:
            model: not yet started.
            settings: the service's.
            decoders: default: new ones, as the settings want them.
            warm: whether nothing is left to be done before the first request. If not,
                `running` sends a drawing down every path first.
            metrics: what is counted; default: its own.
        """
        self.settings = settings
        self.admission = Admission(settings.max_pending, settings.max_pending_bytes)
        self.metrics = metrics or Metrics()
        self._decoders = decoders or Decoders.of(settings)
        self._threads = Threads(settings.image_threads, "image")
        self._loader = Threads(1, "loader")
        self._watchdog = Watchdog(settings.stuck_s)
        self._warm = warm
        self.observers: list[Callable[[Clock], None]] = [self.metrics.stages]
        self.explainer = self._explainer(model)
        self._models = [model]
        self._stop_by: float | None = None
        self._count()

    @classmethod
    def open(cls, settings: Settings, *, metrics: Metrics | None = None) -> Self:
        """Load the model that the settings name.

        Args:
            settings: which model, and how it is run.
            metrics: what is counted; default: its own.

        Raises:
            StartupError: it cannot be served; the message says what to fix.
        """
        return cls(Model.load(settings), settings, warm=False, metrics=metrics)

    @property
    def model(self) -> Model:
        """The version in service."""
        return self.explainer.model

    @property
    def ready(self) -> bool:
        """Whether the model takes photos."""
        return self.model.ready

    def check_alive(self) -> None:
        """Check that the process can go on.

        A version that has been replaced counts until it is freed. One that is being loaded does
        not: no request waits for it, and where it hangs, it is refused.

        Raises:
            EngineDown: it has to be restarted: the model hangs, or its thread has died.
        """
        for model in list(self._models):
            model.check_alive()

    def _explainer(self, model: Model) -> Explainer:
        return Explainer(
            model,
            self._decoders,
            self._threads,
            self.admission,
            self.settings,
            self.metrics,
            self.observers,
        )

    def _count(self) -> None:
        """Let the metrics see what there is to see."""
        settings, admission, decoders = self.settings, self.admission, self._decoders
        self.metrics.model(self.model.card, self.model.engine.info)
        self.metrics.load(
            ready=lambda: self.ready,
            queued=lambda: sum(model.queued for model in list(self._models)),
            in_work=lambda: admission.admitted,
            held_bytes=lambda: admission.held_bytes,
            max_in_work=settings.max_pending,
            max_held_bytes=settings.max_pending_bytes,
        )
        self.metrics.decoders(
            ended=lambda: decoders.ended,
            pending_pixels=lambda: decoders.pending_pixels,
            max_pending_pixels=settings.max_pending_pixels,
        )

    @asynccontextmanager
    async def running(self, end: Callable[[], None] | None = None) -> AsyncIterator[Explainer]:
        """Take requests while the block runs; gives what answers them.

        Args:
            end: ends the process at once, without regard to its threads; None where it is not the
                service's own.
        """
        ends = None if end is None else partial(self._end, end)
        async with self._watchdog.watching(ends):
            self.start()
            try:
                if not self._warm:
                    await self._warm_up(self.model)
                    self._warm = True
                self._serve(self.explainer)
                yield self.explainer
            finally:
                stopped = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(_LAST_S, self._stop_left_s())):
                        stopped = await asyncio.to_thread(self.stop)
                if not stopped and ends is not None:
                    log.critical("The service did not stop in time. The process ends.")
                    ends()

    def _end(self, end: Callable[[], None]) -> None:
        """End the process, and those that decode first: they are busy for seconds."""
        self._decoders.kill()
        end()

    def start(self) -> None:
        """Start taking requests.

        Raises:
            StartupError: the processes that decode photos do not start here.
        """
        self._stop_by = None
        self._decoders.start()
        self._watchdog.watch(self.model.worker)
        self.model.start()

    def _serve(self, explainer: Explainer) -> None:
        """Let it answer requests from now on."""
        model = explainer.model
        model.observers.append(self.metrics.batch)
        self.metrics.model(model.card, model.engine.info)
        explainer.since = datetime.now(UTC)
        self.explainer = explainer

    async def _warm_up(self, model: Model) -> None:
        """Send a drawing down every path, in each format: first uses load and compile things.

        Nothing of it is counted: no client has asked for it.
        """
        explainer = Explainer(
            model, self._decoders, self._threads, self.admission, self.settings, Metrics()
        )
        ramp = np.linspace(0, 255, 640, dtype=np.uint8)
        drawing = np.stack(np.broadcast_arrays(ramp, ramp[:480, None], 128), axis=-1)
        for format in overlay.MEDIA_TYPES:
            data = await self._threads.run(overlay.encode, drawing.astype(np.uint8), format)
            await explainer.predict(data, PredictQuery())
            for media_type in (None, format):
                await explainer.explain(data, GradcamQuery(), media_type)
                await explainer.compare(data, CompareQuery(), media_type)

    # -- another version

    async def replace(self, path: Path) -> Explainer:
        """Load another version and warm it, while the one in service serves on, then serve it.

        One at a time, and the one before is retired first.

        Args:
            path: of the version.

        Returns:
            What served before, to be retired.

        Raises:
            StartupError: the version is at fault; the message says why.
            EngineFailed: likewise, on a drawing.
            Exception: something else is, and another try may succeed: `DeadlineExceeded` where it
                is not warm after `Settings.stuck_s`.
        """
        model = await self._loader.run(Model.load, self.settings, path)
        model.start()
        try:
            async with asyncio.timeout(self.settings.stuck_s):
                await self._warm_up(model)
        except BaseException as error:
            # One that hangs keeps its thread. No request waits for it, so the process goes on.
            freed = await self._loader.run(_free, model, self._patience_s(model))
            stuck_s = self.settings.stuck_s
            if isinstance(error, Exception) and not freed:  # tried again, it would keep another
                raise StartupError(f"It has not answered a drawing for {stuck_s:g} s.") from error
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"It is not warm after {stuck_s:g} s.") from None
            raise
        before = self.explainer
        self._models.append(model)
        self._watchdog.watch(model.worker)
        self._serve(self._explainer(model))
        return before

    async def retire(self, before: Explainer) -> bool:
        """Stop a version that has been replaced, when its last request has ended, and free it.

        Until then it is watched as the one in service is: where it hangs, the process ends, since
        neither its thread nor its memory could be had back otherwise.

        Returns:
            Whether it is freed. If not, it hangs.
        """
        model, settings = before.model, self.settings
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.deadline_s + STOP_S):
                await before.until_idle()
        freed = await self._loader.run(_free, model, self._patience_s(model))
        if freed:
            self._watchdog.forget(model.worker)
            self._models.remove(model)
        return freed

    # -- the end

    def begin_stop(self) -> float:
        """Let the time for stopping run from the first call on: that of the signal to stop.

        Returns:
            Seconds that are left for requests and loads in work: the deadline's, at first.
        """
        if self._stop_by is None:
            self._stop_by = time.monotonic() + self.settings.deadline_s
        return max(0.0, self._stop_by - time.monotonic())

    def _stop_left_s(self) -> float:
        """Seconds that are left of the time for stopping, with what follows the deadline."""
        self.begin_stop()
        assert self._stop_by is not None
        return self._stop_by + STOP_S - time.monotonic()

    def _patience_s(self, model: Model) -> float:
        """How long to wait for a call of the model before it is taken for one that hangs."""
        left_s = max(0.0, self.settings.stuck_s - model.worker.running_s)
        return left_s if self._stop_by is None else min(left_s, self.begin_stop())

    def stop(self) -> bool:
        """Finish what waits, then free the model; blocks, so it is not for the event loop.

        Returns:
            Whether the model could be freed. If not, it still runs, though nobody waits for its
            answer any more.
        """
        # A thread that has nothing to do takes milliseconds to end, so it always gets some.
        patience_s = max(_LAST_S / 2, self._stop_left_s() - _LAST_S)
        patience_s = min(patience_s, self.settings.deadline_s)
        until = time.monotonic() + patience_s
        models = list(self._models)
        with ThreadPoolExecutor(len(models)) as pool:  # at once: one of them may hang
            ended = list(pool.map(lambda model: model.stop(patience_s), models))
        while self.admission.busy and time.monotonic() < until:
            time.sleep(0.01)  # what has left the model is being drawn
        self._decoders.stop()
        self._threads.stop()
        self._loader.stop()
        for model, has_ended in zip(models, ended, strict=True):
            if has_ended:
                model.close()
        return all(ended)


def _free(model: Model, patience_s: float) -> bool:
    """Stop a model and give back its memory; blocks.

    Returns:
        Whether it has stopped. If not, it still runs, and has its memory.
    """
    if not model.stop(patience_s):
        return False
    model.close()
    heap.trim()
    return True
