"""Photos through the `Explainer`, and their rows into parts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from app.batch.errors import BatchError
from app.batch.inputs import Photo, Source
from app.batch.output import Manifest
from app.batch.rows import OverlayFile, Row
from app.errors import EngineFailed, NotReady, QueueFull, RequestError
from app.explainer import Explainer
from app.overlay import MEDIA_TYPES
from app.schemas import CamQuery, ExplainQuery, GradcamQuery, PredictQuery

__all__ = ["QUERIES", "Sink", "Work"]

QUERIES: dict[str, type[PredictQuery]] = {
    "predict": PredictQuery,
    "cam": CamQuery,
    "gradcam": GradcamQuery,
}
"""Parameters, by endpoint."""

_TRIES = 3
"""For a photo whose decoders the system has ended: memory may have been short for a while."""


class Sink(Protocol):
    """Takes what has been made; its methods are called from threads."""

    def write_overlay(self, photo_id: str, picture: bytes) -> str:
        """Keep a photo's overlay; returns its path within the output folder."""
        ...

    def write_part(self, number: int, rows: Sequence[Row]) -> None:
        """Keep a part, whose overlays are there."""
        ...


@dataclass(slots=True)
class _Part:
    """A part in work: its rows by place, how many are lacking, and who takes it."""

    sink: Sink
    number: int
    lacking: int
    rows: dict[int, Row] = field(default_factory=dict)


class Work:
    """Explains photos, many at a time, and hands over parts as they are done.

    There is no deadline: nobody waits, and a photo's time is bounded by what may stop it, the
    decoders' limits and the watchdog. So an answer does not depend on the photos beside it.
    """

    def __init__(
        self,
        explainer: Explainer,
        source: Source,
        manifest: Manifest,
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Set it up.

        Args:
            explainer: of a service that runs.
            source: the photos.
            manifest: what the run is of.
            advance: called with the number of photos that are done.
        """
        self._explainer = explainer
        self._source = source
        self._manifest = manifest
        self._advance = advance
        self._query = QUERIES[manifest.endpoint].model_validate(manifest.query)
        self._reading = asyncio.Lock()  # a source is read by one at a time
        self._places = asyncio.Semaphore(explainer.settings.max_pending)
        self._turn = asyncio.Lock()  # of the photo that waits for memory longest
        self._changed = asyncio.Condition()
        self._finished = 0

    async def run(self, parts: Iterable[int], sink: Sink) -> None:
        """Do these parts; those in work overlap, so that the model always has photos.

        Calls may overlap too.

        Args:
            parts: their numbers.
            sink: takes overlays and parts.

        Raises:
            BatchError: the input has changed, or the system keeps ending decoders.
            EngineDown: the model hangs.
            OSError: a file cannot be read or written.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for number in parts:
                    await self._begin(number, sink, group)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _begin(self, number: int, sink: Sink, group: asyncio.TaskGroup) -> None:
        """Start the work at a part's photos, each when there is a place for it."""
        start, stop = self._manifest.bounds(number)
        part = _Part(sink, number, stop - start)
        place = start
        async with self._reading:
            batches = self._source.batches(start, stop)
            while (photos := await asyncio.to_thread(next, batches, None)) is not None:
                for photo in photos:
                    await self._places.acquire()
                    group.create_task(self._complete(part, place, photo))
                    place += 1

    async def _complete(self, part: _Part, place: int, photo: Photo) -> None:
        """Add a photo's row to its part, and hand the part over when it was the last."""
        try:
            part.rows[place] = await self._row(photo, part.sink)
        finally:
            self._places.release()
        self._advance(1)
        part.lacking -= 1
        if not part.lacking:
            rows = [part.rows[place] for place in sorted(part.rows)]
            await asyncio.to_thread(part.sink.write_part, part.number, rows)

    async def _row(self, photo: Photo, sink: Sink) -> Row:
        """The photo's row. A fault of the photo is a row too; any other ends the run.

        The other faults may be gone when the run is resumed, but a row is for good.
        """
        try:
            size = await asyncio.to_thread(photo.size, self._explainer.settings.max_bytes)
            async with self._room(size):
                data = await asyncio.to_thread(photo.read, size)
                return await self._answer(photo, data, sink)
        except (RequestError, EngineFailed) as error:
            return Row.refused(photo, error)
        except Exception as error:
            error.add_note(f"while explaining the photo {photo.id!r}")
            raise

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        """Hold a place and memory for a photo while the block runs, under the service's bounds."""
        admission, most = self._explainer.admission, self._explainer.settings.max_pending_bytes
        try:
            with admission.admit(), admission.hold_bytes() as take:
                async with self._turn, self._changed:
                    await self._changed.wait_for(lambda: admission.held_bytes + size <= most)
                    await take(size)
                yield
        finally:
            async with self._changed:
                self._finished += 1
                self._changed.notify_all()

    async def _answer(self, photo: Photo, data: bytes, sink: Sink) -> Row:
        tries = 0
        while True:
            finished = self._finished
            try:
                return await self._try(photo, data, sink)
            except QueueFull:  # other large photos are being decoded
                async with self._changed:
                    await self._changed.wait_for(lambda: self._finished > finished)  # noqa: B023
            except NotReady as error:
                tries += 1
                if tries == _TRIES:
                    raise BatchError(f"{photo.id}: {error}") from error
                await asyncio.sleep(error.retry_after_s or 0)

    async def _try(self, photo: Photo, data: bytes, sink: Sink) -> Row:
        """One photo.

        Raises:
            BreedCAMError: what HTTP would answer.
        """
        explainer, query = self._explainer, self._query
        if not isinstance(query, ExplainQuery):
            return Row.answered(photo, await explainer.predict(data, query))
        answer = await explainer.explain(data, query, MEDIA_TYPES[0] if query.overlay else None)
        drawn, overlay = answer.response.overlay, None
        if drawn is not None:
            file = await asyncio.to_thread(sink.write_overlay, photo.id, answer.body)
            overlay = OverlayFile(**drawn.model_dump(exclude={"data"}), file=file)
        return Row.answered(photo, answer.response, overlay)
