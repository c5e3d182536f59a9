"""The application: what is started and stopped, and the pages beside the API.

`python -m app.main` serves it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from app import __version__, openapi, problems, security, server
from app.metrics import FORMATS, Metrics
from app.negotiation import negotiate
from app.rating_routes import RatingRoom
from app.rating_routes import router as rating_router
from app.ratings import Ratings
from app.refusal import Refusal
from app.routes import PHOTO_ROUTES, Room, router
from app.service import Service
from app.settings import Settings
from app.telemetry import RequestLog, log_context
from app.tracing import Tracing
from app.versions import Versions
from app.watchdog import end_process

__all__ = ["create_app", "run"]

log = logging.getLogger(__name__)

_STATIC = Path(__file__).resolve().parent / "static"


def create_app(
    settings: Settings | None = None,
    service: Service | None = None,
    *,
    end: Callable[[], None] | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        settings: default: from the environment.
        service: with a model already loaded; default: opened when the application starts.
        end: ends the process when the model hangs; None leaves that to whoever asks `/livez`.

    Returns:
        An ASGI application that serves from the start of its lifespan to the end. Its metrics are
        the service's. Its `state.refusal` is for `Edge.refusal`; None where there is no `service`.
        Its `state.versions` looks for newer versions of the model while it serves.
    """
    settings = settings or Settings()
    metrics = service.metrics if service else Metrics()
    tracing = Tracing.from_environment()

    def serving(app: FastAPI) -> AbstractAsyncContextManager[None]:
        opened = service or Service.open(settings, metrics=metrics)
        return _serving(app, opened, tracing, end)

    app = FastAPI(
        title="BreedCAM",
        summary="Dog breeds with their reasons: predictions, heatmaps and boxes.",
        description=openapi.DESCRIPTION,
        version=__version__,
        license_info={"name": "MIT", "identifier": "MIT"},
        generate_unique_id_function=lambda route: route.name,
        lifespan=serving,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_routes(app, settings, metrics)
    _add_layers(app, settings, metrics, tracing)
    app.state.refusal = None
    # A trace has a span of each request, which early refusals do without.
    if service and not tracing and Refusal.comes_first(settings):
        app.state.refusal = Refusal(
            settings, service.admission, metrics, PHOTO_ROUTES, lambda: service.ready
        )
    return app


@asynccontextmanager
async def _serving(
    app: FastAPI, service: Service, tracing: Tracing | None, end: Callable[[], None] | None
) -> AsyncIterator[None]:
    """Answer requests while the block runs."""
    if tracing:
        service.observers.append(tracing.stages)
    versions = Versions(service)
    async with service.running(end), versions.watching(), _rated(app, service.settings):
        log.info("serving %s", service.model)
        app.state.service, app.state.versions = service, versions
        try:
            yield
        finally:
            app.state.service = app.state.versions = None
    if tracing:
        await asyncio.to_thread(tracing.close)


@asynccontextmanager
async def _rated(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """Keep ratings while the block runs, where the settings name a file."""
    if settings.ratings is None:
        yield
        return
    room = RatingRoom(await asyncio.to_thread(Ratings.open, settings.ratings))
    app.state.ratings = room
    try:
        yield
    finally:
        await asyncio.to_thread(room.close)


def _add_routes(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The API and the pages beside it."""
    app.include_router(router)
    if settings.ratings is not None:
        app.include_router(rating_router)
    openapi.describe(app)
    if settings.docs:
        _add_docs(app)
    _add_page(app)
    if settings.metrics:
        _add_metrics(app, metrics)


def _add_layers(
    app: FastAPI, settings: Settings, metrics: Metrics, tracing: Tracing | None
) -> None:
    """What a request passes before the routes, from the inside out: the last to be added is first.

    Around all else is the trace, so that the line in the log has its id.
    """
    app.add_middleware(Room)  # innermost: keys and hosts are checked first
    problems.add_handlers(app)
    security.protect(app, settings)
    app.add_middleware(RequestLog, metrics=metrics, tracing=tracing)
    if tracing:
        app.add_middleware(tracing.middleware)


def _add_docs(app: FastAPI) -> None:
    """Swagger UI at `/docs`, from files that are installed here: networks may be closed.

    Its links are relative, so that they hold behind a proxy's prefix too.
    """
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )
    page.headers.update(security.docs(bytes(page.body)))

    async def docs() -> Response:
        return page

    app.add_api_route("/docs", docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/docs", _PageFiles(packages=[("fastapi_offline", "static")]))


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    """The metrics at `/metrics`, for Prometheus."""

    def expose(request: Request) -> Response:  # not on the event loop: it takes milliseconds
        media_type = negotiate(request.headers.getlist("accept"), FORMATS)
        body, content_type = metrics.expose(media_type)
        return Response(body, headers={"Content-Type": content_type})

    app.add_api_route("/metrics", expose, methods=["GET", "HEAD"], include_in_schema=False)


class _PageFiles(StaticFiles):
    """A page's files, revalidated at each use, so that all of them are of one version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that it has not changed."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_page(app: FastAPI) -> None:
    """The page at `/`, for people."""
    files = _PageFiles(directory=_STATIC)

    async def page(request: Request) -> Response:
        response = await files.get_response("index.html", request.scope)
        response.headers.update(security.PAGE)
        return response

    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", files)


def run() -> None:
    """Serve until SIGTERM or SIGINT, with settings from the environment."""
    server.run(partial(create_app, end=end_process), log_context)


if __name__ == "__main__":
    run()
