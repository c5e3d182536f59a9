"""What is started, warmed, watched and stopped together: model, decoders, threads.

The model is the version in service (`app.model`). Decoders are processes that make pixels of bytes
(`app.decoding`). Threads draw and write JSON. An `Explainer` leads a photo through all of them; the
`Admission` decides whether it may enter.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Self

import numpy as np

from app import overlay
from app.admission import Admission
from app.decoding import Decoders
from app.explainer import Explainer
from app.metrics import Metrics
from app.model import Model
from app.schemas import CompareQuery, GradcamQuery, PredictQuery
from app.settings import Settings
from app.threads import Threads

__all__ = ["Service"]

log = logging.getLogger(__name__)

_STOP_S = 5.0
"""Over the deadline of the last requests, for the threads to end."""


class Service:
    """A model version in service.

    Attributes:
        settings: the service's.
        model: what it runs.
        admission: who may enter.
        metrics: what is counted; `/metrics` shows them.
        explainer: answers requests, once the service is started.
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
        self.model = model
        self.admission = Admission(settings.max_pending, settings.max_pending_bytes)
        self.metrics = metrics or Metrics()
        self._decoders = decoders or Decoders.of(settings)
        self._threads = Threads(settings.image_threads, "image")
        self._warm = warm
        self.explainer = self._explainer(self.metrics)
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

    def _explainer(self, metrics: Metrics) -> Explainer:
        return Explainer(
            self.model, self._decoders, self._threads, self.admission, self.settings, metrics
        )

    def _count(self) -> None:
        """Let the metrics see what there is to see."""
        settings, model = self.settings, self.model
        admission, decoders = self.admission, self._decoders
        self.metrics.model(model.card, model.engine.info)
        self.metrics.load(
            ready=lambda: model.ready,
            queued=lambda: model.queued,
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
        async with self.model.watched(ends):
            self.start()
            try:
                await self._warm_up()
                self.model.observers.append(self.metrics.batch)
                yield self.explainer
            finally:
                stopped = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.deadline_s + _STOP_S):
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
        self._decoders.start()
        self.model.start()

    async def _warm_up(self) -> None:
        """Send a drawing down every path, in each format: first uses load and compile things.

        Nothing of it is counted: no client has asked for it.
        """
        if not self._warm:
            explainer = self._explainer(Metrics())
            ramp = np.linspace(0, 255, 640, dtype=np.uint8)
            drawing = np.stack(np.broadcast_arrays(ramp, ramp[:480, None], 128), axis=-1)
            for format in overlay.MEDIA_TYPES:
                data = overlay.encode(drawing.astype(np.uint8), format)
                await explainer.predict(data, PredictQuery())
                for media_type in (None, format):
                    await explainer.explain(data, GradcamQuery(), media_type)
                    await explainer.compare(data, CompareQuery(), media_type)
            self._warm = True

    def stop(self) -> bool:
        """Finish what waits, then free the model; blocks, so it is not for the event loop.

        Returns:
            Whether the model could be freed. If not, it still runs, though nobody waits for its
            answer any more.
        """
        patience_s = self.settings.deadline_s
        until = time.monotonic() + patience_s
        stopped = self.model.stop(patience_s)
        while self.admission.busy and time.monotonic() < until:
            time.sleep(0.01)  # what has left the model is being drawn
        self._decoders.stop()
        self._threads.stop()
        if stopped:
            self.model.close()
        return stopped
