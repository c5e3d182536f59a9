"""The endpoints of ratings; they are there where `BREEDCAM_RATINGS` names a file."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from pydantic_core import from_json

from app.admission import Admission
from app.bodies import limited
from app.clock import deadline
from app.errors import MalformedRequest, RequestError, UnsupportedMediaType
from app.openapi import RATING, refusals
from app.preferences import Summary
from app.ratings import Ratings
from app.routes import READ, documented, ready_service
from app.schemas import ModelId, NoQuery, Rating, RatingsSummary
from app.threads import Threads
from app.wording import sentences

__all__ = ["MAX_BYTES", "MAX_PENDING", "RatingRoom", "router"]

MAX_BYTES = 4096
"""Of a rating's body; it takes some 300."""

MAX_PENDING = 32
"""Ratings and summaries in work at once: they wait for one thread."""

MAX_PENDING_BYTES = 1_000_000
"""Of the bodies that are being read or in work."""

router = APIRouter()


class RatingRoom:
    """The open file of ratings, the thread on which it is used, and who may wait for that.

    Attributes:
        admission: of ratings and summaries. It is not the photos', so neither keeps the other out.
    """

    def __init__(self, ratings: Ratings) -> None:
        """Set it up, for use on one event loop."""
        self._ratings = ratings
        self._threads = Threads(1, "ratings")
        self.admission = Admission(MAX_PENDING, MAX_PENDING_BYTES)

    async def add(self, rating: Rating, model: str, version: int) -> None:
        """See `Ratings.add`."""
        await self._threads.run(self._ratings.add, rating, model, version)

    async def summary(self, model: str, version: int) -> Summary:
        """See `Ratings.summary`."""
        return await self._threads.run(self._ratings.summary, model, version)

    def close(self) -> None:
        """Wait for what is being written, and close the file; blocks."""
        self._threads.stop()
        self._ratings.close()


@router.post(
    "/ratings",
    status_code=204,
    tags=["ratings"],
    summary="Rate heatmaps",
    response_description="The rating is kept",
    responses=refusals(
        *(400, 408, 413, 415, 429, 500, 503, 504, 507),
        details={
            400: "`rater` is missing.",
            413: f"The upload exceeds the limit of {MAX_BYTES} bytes.",
            415: "Send a rating as application/json.",
        },
    ),
    openapi_extra=RATING,
)
async def rate(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Keep which of two heatmaps explains better; never the photo."""
    service = ready_service(request.app)
    room: RatingRoom = request.app.state.ratings
    async with deadline(service.settings.deadline_s):
        with room.admission.hold_bytes() as take:
            body = b""
            async for chunk in limited(_as_json(request), MAX_BYTES, take):
                body += chunk
            rating = _parsed(body)
            with room.admission.admit():
                model = rating.model or service.model.card
                await room.add(rating, model.name, model.version)
    return Response(status_code=204)


@documented(
    router,
    "/ratings/summary",
    READ,
    name="ratings_summary",
    tags=["ratings"],
    summary="Summarize ratings",
    responses=refusals(
        *(400, 429, 500, 503, 504), details={400: "`since`: there is no such parameter."}
    ),
)
async def summary(request: Request, query: Annotated[NoQuery, Query()]) -> RatingsSummary:
    """What the ratings of the model in service say: wins with intervals, and strengths."""
    service = ready_service(request.app)
    room: RatingRoom = request.app.state.ratings
    card = service.model.card
    async with deadline(service.settings.deadline_s):
        with room.admission.admit():
            figures = await room.summary(card.name, card.version)
    return RatingsSummary(model=ModelId(name=card.name, version=card.version), **dict(figures))


def _as_json(request: Request) -> Request:
    """The request, if it says that its body is JSON.

    Browsers send no JSON to another origin without leave, so no foreign page can rate.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedMediaType("Send a rating as application/json.")
    return request


def _parsed(body: bytes) -> Rating:
    try:
        return Rating.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        if not faults[0]["loc"]:
            raise MalformedRequest("The body is not a JSON object.") from error
        repeated = {
            name
            for name, value in from_json(body).items()
            if isinstance(value, list) and len(value) > 1
        }
        faults = [{**fault, "loc": _place(fault["loc"])} for fault in faults]
        detail = "; ".join(sentences(faults, "`{}`", list(Rating.model_fields), repeated))
        raise RequestError(f"{detail}.") from error


def _place(loc: Sequence[int | str]) -> tuple[int | str, ...]:
    """A member's place with the names of objects joined: `model.version`."""
    names = [part for part in loc if isinstance(part, str)]
    return (".".join(names), *loc[len(names) :])
