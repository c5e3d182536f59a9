"""Photos through the `Explainer`, and their rows into parts."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from app.batch.inputs import Photo, Source
from app.batch.output import Output
from app.batch.rows import OverlayFile, Row
from app.errors import BreedCAMError, EngineDown, NotReady, QueueFull
from app.explainer import Explainer
from app.overlay import MEDIA_TYPES
from app.schemas import CamQuery, ExplainQuery, GradcamQuery, PredictQuery

__all__ = ["QUERIES", "Work"]

log = logging.getLogger(__name__)

QUERIES: dict[str, type[PredictQuery]] = {
    "predict": PredictQuery,
    "cam": CamQuery,
    "gradcam": GradcamQuery,
}
"""Parameters, by endpoint."""

_PAUSE_S = 0.05
"""Before another try where large photos, or the bytes of all, leave no room."""

_TRIES = 3
"""For a photo whose decoders the system has ended: memory may have been short for a while."""


@dataclass(slots=True)
class _Part:
    """A part in work: its rows by place, and how many are lacking."""

    number: int
    lacking: int
    rows: dict[int, Row] = field(default_factory=dict)


class Work:
    """Explains photos, many at a time, and writes parts as they are done.

    There is no deadline: nobody waits, and a photo's time is bounded by what may stop it, the
    decoders' limits and the watchdog. So an answer does not depend on the photos beside it.
    """

    def __init__(
        self,
        explainer: Explainer,
        source: Source,
        output: Output,
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Set it up.

        Args:
            explainer: of a service that runs.
            source: the photos.
            output: takes the parts; its manifest has the query.
            advance: called with the number of photos that are done.
        """
        self._explainer = explainer
        self._source = source
        self._output = output
        self._advance = advance
        manifest = output.manifest
        self._query = QUERIES[manifest.endpoint].model_validate(manifest.query)
        self._places = asyncio.Semaphore(explainer.settings.max_pending)

    async def run(self, parts: Iterable[int]) -> None:
        """Write these parts; those in work overlap, so that the model always has photos.

        Raises:
            EngineDown: the model hangs.
            OSError: a file cannot be written.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for number in parts:
                    await self._begin(number, group)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _begin(self, number: int, group: asyncio.TaskGroup) -> None:
        """Start the work at a part's photos, each when there is a place for it."""
        start, stop = self._output.manifest.bounds(number)
        part = _Part(number, stop - start)
        place = start
        batches = self._source.batches(start, stop)
        while (photos := await asyncio.to_thread(next, batches, None)) is not None:
            for photo in photos:
                await self._places.acquire()
                group.create_task(self._complete(part, place, photo))
                place += 1

    async def _complete(self, part: _Part, place: int, photo: Photo) -> None:
        """Add a photo's row to its part, and write the part when it was the last."""
        try:
            part.rows[place] = await self._row(photo)
        finally:
            self._places.release()
        self._advance(1)
        part.lacking -= 1
        if not part.lacking:
            rows = [part.rows[place] for place in sorted(part.rows)]
            await asyncio.to_thread(self._output.write_part, part.number, rows)

    async def _row(self, photo: Photo) -> Row:
        """The photo's row, whatever is wrong with the photo."""
        try:
            return await self._answer(photo)
        except (EngineDown, OSError):
            raise
        except BreedCAMError as error:
            return Row.refused(photo, error)
        except Exception:
            log.exception("an unexpected error with photo %r", photo.id)
            return Row.refused(photo, BreedCAMError("An unexpected error occurred."))

    async def _answer(self, photo: Photo) -> Row:
        tries = 0
        while True:
            try:
                return await self._try(photo)
            except QueueFull:  # there will be room when others are done
                await asyncio.sleep(_PAUSE_S)
            except NotReady as error:
                tries += 1
                if tries == _TRIES:
                    raise
                await asyncio.sleep(error.retry_after_s or 0)

    async def _try(self, photo: Photo) -> Row:
        """One photo, under the same bounds as a request's.

        Raises:
            BreedCAMError: what HTTP would answer.
        """
        explainer, query = self._explainer, self._query
        admission = explainer.admission
        with admission.hold_bytes() as take, admission.admit():
            size = await asyncio.to_thread(photo.size, explainer.settings.max_bytes)
            await take(size)
            data = await asyncio.to_thread(photo.read, size)
            if isinstance(query, ExplainQuery):
                return await self._explained(photo, data, query)
            return Row.answered(photo, await explainer.predict(data, query))

    async def _explained(self, photo: Photo, data: bytes, query: ExplainQuery) -> Row:
        picture_as = MEDIA_TYPES[0] if query.overlay else None
        answer = await self._explainer.explain(data, query, picture_as)
        drawn, overlay = answer.response.overlay, None
        if drawn is not None:
            file = await asyncio.to_thread(self._output.write_overlay, photo.id, answer.body)
            sizes = drawn.model_dump(exclude={"data"})
            overlay = OverlayFile(**sizes, file=file)
        return Row.answered(photo, answer.response, overlay)
