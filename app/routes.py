"""HTTP in, HTTP out, nothing else."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app import problems
from app.admission import Admission
from app.answers import MEDIA_TYPES, NPY
from app.bodies import read_image
from app.clock import deadline
from app.errors import (
    BreedCAMError,
    ClientGone,
    DeadlineExceeded,
    NotAcceptable,
    NotReady,
    RequestError,
    RequestTimeout,
)
from app.explainer import Explainer
from app.negotiation import negotiate
from app.openapi import PHOTO, picture, refusals
from app.schemas import (
    CamQuery,
    Compared,
    CompareQuery,
    CompareResponse,
    EvidenceQuery,
    ExplainQuery,
    ExplainResponse,
    Explanation,
    GradcamQuery,
    Health,
    Localization,
    ModelInfo,
    PredictQuery,
    PredictResponse,
)
from app.service import Service

__all__ = ["PHOTO_ROUTES", "READ", "Room", "documented", "ready_service", "router"]

T = TypeVar("T")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

router = APIRouter()

JSON = "application/json"

_AS_IT_IS = "".join(sorted(set(map(chr, range(0x20, 0x7F))) - {"%"}))
"""What stands in a header unquoted: printable ASCII, but the sign that quotes the rest."""

_PICTURE = picture(MEDIA_TYPES)
_ALL_STATUSES = refusals()
_PREDICT_STATUSES = {status: text for status, text in _ALL_STATUSES.items() if status != 409}

READ = ("GET", "HEAD")
"""Of what is read: HEAD is for load balancers."""

_SEND = ("POST", "PUT")
"""Of a photo: `curl -T` sends PUT."""


def documented(
    router: APIRouter, path: str, methods: Sequence[str], **options: Any
) -> Callable[[Endpoint], Endpoint]:
    """A route for these methods, but for the first alone in OpenAPI."""

    def add(endpoint: Endpoint) -> Endpoint:
        # The first answers everything, a 405 with its `Allow` too; the second is documented.
        router.add_api_route(path, endpoint, methods=list(methods), include_in_schema=False)
        router.add_api_route(path, endpoint, methods=[methods[0]], **options)
        return endpoint

    return add


_read = partial(documented, router, methods=READ)
_photo_route = partial(documented, router, methods=_SEND, tags=["photos"], openapi_extra=PHOTO)


@_photo_route(
    "/predict",
    summary="Predict breeds",
    response_model=PredictResponse,
    response_description="The likeliest breeds",
    responses=_PREDICT_STATUSES,
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """The likeliest breeds."""
    negotiate(request.headers.getlist("accept"), [JSON])
    async with _photo(request, query) as (explainer, data):
        response = await _unless_gone(request, explainer.predict(data, query))
    return Response(response.model_dump_json(), media_type=JSON)


@_photo_route(
    "/cam",
    summary="Explain by CAM",
    response_model=ExplainResponse,
    responses=_PICTURE | _ALL_STATUSES,
)
async def cam(request: Request, query: Annotated[CamQuery, Query()]) -> Response:
    """The likeliest breeds and the CAM heatmap of one of them."""
    return await _explain(request, query)


@_photo_route(
    "/gradcam",
    summary="Explain by Grad-CAM and its relatives",
    response_model=ExplainResponse,
    responses=_PICTURE | _ALL_STATUSES,
)
async def gradcam(request: Request, query: Annotated[GradcamQuery, Query()]) -> Response:
    """The likeliest breeds and a heatmap of the Grad-CAM family for one of them."""
    return await _explain(request, query)


@_photo_route(
    "/compare",
    summary="Compare methods",
    response_model=CompareResponse,
    responses=_PICTURE | _ALL_STATUSES,
)
async def compare(request: Request, query: Annotated[CompareQuery, Query()]) -> Response:
    """Several methods side by side: CAM, and Grad-CAM at the last layer and over the last six.

    Other methods if `method` names them, and for several classes if `target` does. With a head of
    global average pooling and one Dense layer, the first two show the same: there, Grad-CAM at the
    last layer is CAM after a ReLU, up to a factor.
    """
    media_type = _media_type(request, query)
    async with _photo(request, query) as (explainer, data):
        answer = await _unless_gone(request, explainer.compare(data, query, media_type))
    explanations = answer.response.explanations
    return _response(explainer.admission, answer.body, media_type, answer.response, explanations)


@_read("/model", tags=["model"], summary="Describe the model", responses=refusals(503))
async def model(request: Request) -> ModelInfo:
    """The model in service, its numbers, and the engine that runs it."""
    return ready_service(request.app).explainer.describe()


@_read("/livez", tags=["health"], summary="Liveness", responses=refusals(503))
async def livez(request: Request) -> Health:
    """The process can go on. It cannot where the model hangs or its thread has died."""
    service: Service | None = getattr(request.app.state, "service", None)
    if service is not None:
        service.check_alive()
    return Health(status="alive")


@_read("/readyz", tags=["health"], summary="Readiness", responses=refusals(503))
async def readyz(request: Request) -> Health:
    """The model is loaded and warm, and its worker lives."""
    ready_service(request.app)
    return Health(status="ready")


PHOTO_ROUTES = {
    route.path: route
    for route in router.routes
    if isinstance(route, APIRoute) and "PUT" in (route.methods or ())
}
"""By path."""


class Room:
    """ASGI middleware: answers a photo's request 429 before it is routed, if every place is taken.

    What refusals cost is lost to the requests that are answered: of a refusal, routing and parsing
    the parameters would be more than half. Most requests do not even come here: see `app.refusal`.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before its body is read."""
        if scope["type"] == "http" and scope["method"] in _SEND:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if route := PHOTO_ROUTES.get(path):
                try:
                    ready_service(scope["app"]).admission.check_room()
                except BreedCAMError as error:
                    scope["route"] = route  # for the log and the metrics
                    await problems.answer(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def _explain(request: Request, query: ExplainQuery) -> Response:
    """What `/cam` and `/gradcam` do."""
    media_type = _media_type(request, query)
    async with _photo(request, query) as (explainer, data):
        answer = await _unless_gone(request, explainer.explain(data, query, media_type))
    return _response(
        explainer.admission, answer.body, media_type, answer.response, [answer.response]
    )


def _media_type(request: Request, query: EvidenceQuery) -> str | None:
    """The media type of a picture or of heatmaps where `Accept` prefers one to JSON; else None.

    Raises:
        NotAcceptable: it allows none of them, or one alone where the query wants more.
    """
    accept = request.headers.getlist("accept")
    if query.heatmap or query.photo:
        try:
            negotiate(accept, [JSON])
        except NotAcceptable as error:
            raise NotAcceptable(f"{error} With `heatmap` or `photo` there is no other.") from None
        return None
    media_type = negotiate(accept, [JSON, *(MEDIA_TYPES if query.overlay else [NPY])])
    return None if media_type == JSON else media_type


@asynccontextmanager
async def _photo(request: Request, query: PredictQuery) -> AsyncIterator[tuple[Explainer, bytes]]:
    """The request's photo, and a place in the service and time for it while the block runs.

    What answers it is chosen when the photo is there: an upload may outlast a model version.

    Raises:
        RequestError: a parameter that takes one value is there twice.
        RequestTimeout: the time is over, and most of it has gone to the arrival of the body.
        DeadlineExceeded: the time is over, and most of it has gone to the work.
    """
    for name in request.query_params:
        repeatable = isinstance(getattr(query, name), list)
        if not repeatable and len(request.query_params.getlist(name)) > 1:
            raise RequestError(f"`{name}` is given more than once.")
    service = ready_service(request.app)
    seconds = service.settings.deadline_s
    begun, upload_s = time.monotonic(), math.inf
    try:
        async with deadline(seconds):
            with service.admission.hold_bytes() as take:
                data = await read_image(request, service.settings, take)
                upload_s = time.monotonic() - begun
                with service.admission.admit(), service.explainer.held() as explainer:
                    yield explainer, data
    except DeadlineExceeded as error:
        if upload_s < seconds / 2:
            raise
        raise RequestTimeout(
            f"The body arrives too slowly for an answer within {seconds:g} s."
        ) from error


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for work, and cancel it when the client hangs up.

    It ends when the work has: what a cancelled request holds is held until it is dropped.

    Raises:
        ClientGone: it did; nobody reads this answer.
    """

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(hung_up())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientGone("The connection was closed before the answer.")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _HeldResponse(Response):
    """A response whose body counts as held until it is sent, or its client is gone."""

    def __init__(self, admission: Admission, body: bytes, **options: Any) -> None:
        super().__init__(body, **options)
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._admission.hold_bytes() as take:
            await take(len(self.body))
            await super().__call__(scope, receive, send)


def _response(
    admission: Admission,
    body: bytes,
    media_type: str | None,
    figures: ExplainResponse | CompareResponse,
    explanations: Sequence[ExplainResponse | Compared],
) -> Response:
    """The body as JSON, or as the picture or the heatmaps with their figures in headers."""
    if media_type is None:
        return _HeldResponse(admission, body, media_type=JSON)
    headers = _figures(figures, explanations)
    return _HeldResponse(admission, body, media_type=media_type, headers=headers)


def _figures(
    figures: ExplainResponse | CompareResponse, explanations: Sequence[ExplainResponse | Compared]
) -> dict[str, str]:
    """The headers of a picture or of heatmaps alone, with semicolons between several values.

    Targets have one value each, though several explanations may be of one target.
    """
    targets = list(dict.fromkeys(panel.target for panel in explanations))
    as_it_is = _AS_IT_IS if len(targets) == 1 else _AS_IT_IS.replace(";", "")
    headers = {
        "BreedCAM-Target": "; ".join(quote(target.label, safe=as_it_is) for target in targets),
        "BreedCAM-Probability": "; ".join(f"{target.probability:.6f}" for target in targets),
    }
    if figures.confidence:
        headers["BreedCAM-Confidence"] = figures.confidence
    panels = [_panel_figures(panel.explanation, panel.localization) for panel in explanations]
    names = dict.fromkeys(name for panel in panels for name in panel)
    # A panel that lacks a figure leaves its place empty. HTTP allows no space at either end.
    joined = {name: "; ".join(panel.get(name, "") for panel in panels).strip() for name in names}
    return headers | joined


def _panel_figures(explanation: Explanation, localization: Localization | None) -> dict[str, str]:
    headers = {"BreedCAM-Status": explanation.status, "BreedCAM-Rule": explanation.rule.value}
    if explanation.box:
        headers["BreedCAM-Box"] = ",".join(f"{edge:.10g}" for edge in explanation.box)
    if localization:
        headers["BreedCAM-IoU"] = f"{localization.iou:.6f}"
    return headers


def ready_service(app: FastAPI) -> Service:
    """What serves the application's requests; its `explainer` may be another at any `await`.

    Raises:
        NotReady: the service is starting or stopping.
        EngineDown: the model hangs, or its thread has died.
    """
    service: Service | None = getattr(app.state, "service", None)
    if service is None:
        raise NotReady("The service is starting or stopping.")
    service.model.check_alive()
    if not service.ready:
        raise NotReady("The service is starting or stopping.")
    return service
