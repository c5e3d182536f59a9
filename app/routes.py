"""HTTP in, HTTP out, nothing else."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response

from app.bodies import read_image
from app.errors import MissingImage, NotAcceptable, NotReady, RequestError
from app.explainer import Answer, Explainer
from app.overlay import MEDIA_TYPES
from app.schemas import (
    CamQuery,
    CompareQuery,
    CompareResponse,
    ExplainResponse,
    Explanation,
    GradcamQuery,
    Localization,
    ModelInfo,
    PredictQuery,
    PredictResponse,
    Problem,
)

__all__ = ["router"]

T = TypeVar("T")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

router = APIRouter()

JSON = "application/json"

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, description in {
        400: "A parameter that cannot be right, an unknown target, or no image",
        406: "No representation that `Accept` allows",
        409: "The model does not carry the method, or the rule is not calibrated for it",
        413: "Too many bytes or pixels",
        415: "Neither an accepted content type nor an allowed image format",
        422: "An allowed format that does not decode",
        429: "Too many requests in work; see `Retry-After`",
        500: "The model failed",
        503: "Starting or stopping",
        504: "Past the deadline",
    }.items()
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}


def _problems(*absent: int) -> dict[int | str, dict[str, Any]]:
    return {status: told for status, told in _PROBLEMS.items() if status not in absent}


_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {media_type: _BINARY for media_type in MEDIA_TYPES},
        "description": "JSON; or, where `Accept` prefers a picture, the overlay alone, with the "
        "figures in the headers `BreedCAM-Target`, `-Probability`, `-Confidence`, `-Status`, "
        "`-Rule`, `-Box` and `-IoU`; those of several explanations with semicolons between",
    }
}


_READ = ["GET", "HEAD"]


def _read(path: str, **told: Any) -> Callable[[Endpoint], Endpoint]:
    """A route for GET and for HEAD, which load balancers ask by, but for GET alone in OpenAPI."""

    def add(endpoint: Endpoint) -> Endpoint:
        # The first one answers everything, a 405 with its `Allow` too; the second is documented.
        router.add_api_route(path, endpoint, methods=_READ, include_in_schema=False)
        router.add_api_route(path, endpoint, methods=["GET"], **told)
        return endpoint

    return add


@router.post(
    "/predict", response_model=PredictResponse, responses=_problems(409), openapi_extra=_BODY
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """The likeliest breeds."""
    _negotiate(request, [JSON])

    async def ask(explainer: Explainer, data: bytes, remaining_s: float) -> PredictResponse:
        return await explainer.predict(data, query, remaining_s)

    answer = await _with_image(request, ask)
    return Response(answer.model_dump_json(), media_type=JSON)


@router.post(
    "/cam",
    response_model=ExplainResponse,
    responses=_PICTURE | _problems(),
    openapi_extra=_BODY,
)
async def cam(request: Request, query: Annotated[CamQuery, Query()]) -> Response:
    """The likeliest breeds and the CAM heatmap of one of them."""
    return await _explain(request, query, Explainer.explain)


@router.post(
    "/gradcam",
    response_model=ExplainResponse,
    responses=_PICTURE | _problems(),
    openapi_extra=_BODY,
)
async def gradcam(request: Request, query: Annotated[GradcamQuery, Query()]) -> Response:
    """The likeliest breeds and a heatmap of the Grad-CAM family for one of them."""
    return await _explain(request, query, Explainer.explain)


@router.post(
    "/compare",
    response_model=CompareResponse,
    responses=_PICTURE | _problems(),
    openapi_extra=_BODY,
)
async def compare(request: Request, query: Annotated[CompareQuery, Query()]) -> Response:
    """CAM, Grad-CAM at the last layer and Grad-CAM over the last six, side by side.

    With a head of global average pooling and one Dense layer, the first two show the same: there,
    Grad-CAM at the last layer is CAM after a ReLU, up to a factor.
    """
    return await _explain(request, query, Explainer.compare)


@_read("/model", responses={503: _PROBLEMS[503]})
async def model(request: Request) -> ModelInfo:
    """The model in service, its numbers, and the engine that runs it."""
    return _explainer(request).describe()


@_read("/livez")
async def livez() -> dict[str, str]:
    """The event loop turns."""
    return {"status": "alive"}


@_read("/readyz", responses={503: _PROBLEMS[503]})
async def readyz(request: Request) -> dict[str, str]:
    """The model is loaded and warm, and its worker lives."""
    _explainer(request)
    return {"status": "ready"}


async def _explain(
    request: Request, query: CompareQuery, how: Callable[..., Coroutine[Any, Any, Answer[Any]]]
) -> Response:
    """Answer by one of the explainer's methods, as JSON or as the picture alone."""
    offers = [JSON, *MEDIA_TYPES] if query.overlay else [JSON]
    media_type = _negotiate(request, offers)
    picture_as = None if media_type == JSON else media_type

    async def ask(explainer: Explainer, data: bytes, remaining_s: float) -> Answer[Any]:
        return await how(explainer, data, query, remaining_s, picture_as=picture_as)

    answer = await _with_image(request, ask)
    headers = _figures(answer.response) if picture_as else None
    return Response(answer.body, media_type=media_type, headers=headers)


async def _with_image(
    request: Request, ask: Callable[[Explainer, bytes, float], Coroutine[Any, Any, T]]
) -> T:
    """Read the image, take a place, and ask; for as long as the client is there."""
    for name in set(request.query_params) - {"box"}:
        if len(request.query_params.getlist(name)) > 1:
            raise RequestError(f"`{name}` is given more than once.")
    explainer = _explainer(request)
    explainer.admission.check_room()
    end = time.monotonic() + explainer.settings.deadline_s
    with explainer.admission.hold_bytes() as take:
        data = await read_image(request, explainer.settings, take)
        with explainer.admission.admit():
            return await _unless_gone(request, ask(explainer, data, end - time.monotonic()))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for work, and cancel it when the client hangs up.

    Raises:
        MissingImage: it did; nobody reads this answer.
    """

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(hung_up())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise MissingImage("The connection was closed before the answer.")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _figures(answer: ExplainResponse | CompareResponse) -> dict[str, str]:
    """The headers that go with a bare picture."""
    figures = {
        "BreedCAM-Target": answer.target.label.encode("ascii", "replace").decode(),
        "BreedCAM-Probability": f"{answer.target.probability:.6f}",
    }
    if answer.confidence:
        figures["BreedCAM-Confidence"] = answer.confidence
    told = [answer] if isinstance(answer, ExplainResponse) else answer.explanations
    each = [_figures_of(one.explanation, one.localization) for one in told]
    names = dict.fromkeys(name for headers in each for name in headers)
    # Without a space at either end: there, HTTP allows none.
    return figures | {name: "; ".join(one.get(name, "") for one in each).strip() for name in names}


def _figures_of(explanation: Explanation, localization: Localization | None) -> dict[str, str]:
    figures = {"BreedCAM-Status": explanation.status, "BreedCAM-Rule": explanation.rule.value}
    if explanation.box:
        figures["BreedCAM-Box"] = ",".join(f"{edge:.10g}" for edge in explanation.box)
    if localization:
        figures["BreedCAM-IoU"] = f"{localization.iou:.6f}"
    return figures


def _explainer(request: Request) -> Explainer:
    explainer: Explainer | None = getattr(request.app.state, "explainer", None)
    if explainer is None or not explainer.ready:
        raise NotReady("The service is starting or stopping.")
    return explainer


def _negotiate(request: Request, offers: Sequence[str]) -> str:
    """The offer that `Accept` likes best (RFC 9110, 12.5.1); the first one on a tie.

    Raises:
        NotAcceptable: it allows none.
    """
    header = ",".join(request.headers.getlist("accept")) or "*/*"
    quality = {offer: _quality(header, offer) for offer in offers}
    best = max(offers, key=lambda offer: quality[offer])
    if quality[best] <= 0:
        raise NotAcceptable(f"Here the answer comes as {' or '.join(offers)}.")
    return best


def _quality(header: str, offer: str) -> float:
    """The weight that the most specific matching range gives to `offer`."""
    kind = offer.split("/")[0]
    weights: dict[str, float] = {}
    for part in header.split(","):
        media_range, *parameters = (piece.strip() for piece in part.lower().split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[media_range] = weight
    for media_range in (offer, f"{kind}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
