"""The application: what is started, what is stopped, and how errors look.

`python -m app.main` serves it.
"""

import asyncio
import logging
import math
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.errors import BreedCAMError, RequestError, StartupError
from app.explainer import Explainer
from app.routes import router
from app.schemas import Problem
from app.settings import Settings
from app.telemetry import REQUEST_ID_HEADER, RequestLog, request_id

__all__ = ["create_app", "run"]

log = logging.getLogger(__name__)

_STATIC = Path(__file__).resolve().parent / "static"

# The page runs nothing and shows nothing that does not come from here or from its user's machine.
_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_HTTP_CODES = {404: "not-found", 405: "method-not-allowed"}


def create_app(settings: Settings | None = None, explainer: Explainer | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: default: from the environment.
        explainer: a model already loaded; default: loaded when the application starts.

    Returns:
        An ASGI application that serves from the start of its lifespan to the end.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = explainer or Explainer.open(settings or Settings())
        service.start()
        app.state.explainer = service
        info = service.engine.info
        log.info(
            "serving %s version %d with %s %s in %s on %s",
            service.card.name,
            service.card.version,
            info.name,
            info.version,
            info.precision,
            info.device,
        )
        try:
            yield
        finally:
            app.state.explainer = None
            await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="BreedCAM",
        summary="Dog breeds with their reasons: predictions, heatmaps and boxes.",
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(router)
    _add_docs(app)
    _add_page(app)
    app.add_exception_handler(BreedCAMError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)
    app.add_middleware(RequestLog)
    return app


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

    async def docs() -> Response:
        return page

    app.add_api_route("/docs", docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/docs", StaticFiles(packages=[("fastapi_offline", "static")]))


class _PageFiles(StaticFiles):
    """The page's files: each is asked for anew, so that all of them are of one version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that it has not changed."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _add_page(app: FastAPI) -> None:
    """The page at `/`, for people."""
    files = _PageFiles(directory=_STATIC)

    async def page(request: Request) -> Response:
        response = await files.get_response("index.html", request.scope)
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        return response

    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", files)


def _problem(
    status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    body = Problem(
        type=f"urn:breedcam:error:{code}",
        title=title,
        status=status,
        detail=detail,
        request_id=request_id(),
    )
    # `_unknown` runs outside of `RequestLog`, which gives every other answer its id.
    headers = {REQUEST_ID_HEADER: body.request_id, **(headers or {})}
    return Response(body.model_dump_json(), status, headers, media_type="application/problem+json")


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, BreedCAMError)
    return _problem(error.status, error.code, error.title, str(error), error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(
        f"`{'.'.join(str(part) for part in each['loc'][1:])}`: {_in_plain_words(each)}"
        for each in error.errors()
    )
    return _problem(RequestError.status, RequestError.code, RequestError.title, detail)


def _in_plain_words(error: dict[str, Any]) -> str:
    """What pydantic says, for people who do not know pydantic."""
    if error["type"] == "extra_forbidden":
        return "there is no such parameter; /docs lists them"
    message = str(error["msg"]).removeprefix("Value error, ")
    return re.sub(r"<\w+\.\w+: ('\w+')>", r"\1", message)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, f"http-{error.status_code}")
    title = code.replace("-", " ").capitalize()
    headers = dict(error.headers) if error.headers else None
    return _problem(error.status_code, code, title, str(error.detail), headers)


async def _unknown(_: Request, error: Exception) -> Response:
    """Whatever nobody foresaw: logged in full by the server, told in one line to the client."""
    kind = BreedCAMError
    return _problem(kind.status, kind.code, kind.title, "Something went wrong here, not with you.")


def _cannot_listen(settings: Settings) -> str | None:
    """Why the address cannot be had; None if it can."""
    try:
        infos = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in infos:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        return f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
    return None


def run() -> None:
    """Serve until SIGTERM or SIGINT; a model that cannot be served ends in one line."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(
            "\n".join(
                f"error: BREEDCAM_{str(each['loc'][0]).upper()}: {each['msg']}"
                for each in error.errors()
            )
        )
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if unknown := Settings.unknown(os.environ):
        log.warning("no such setting: %s", ", ".join(unknown))
    if problem := _cannot_listen(settings):  # told before the model takes its time
        sys.exit(f"error: BREEDCAM_HOST, BREEDCAM_PORT: {problem}")
    try:
        explainer = Explainer.open(settings)
    except StartupError as error:
        sys.exit(f"error: {error}")
    # uvicorn drains on SIGTERM and then raises it again; to have been asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings, explainer),
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        # A second over the deadline: what is late is answered 504 rather than cut off.
        timeout_graceful_shutdown=math.ceil(settings.deadline_s) + 1,
    )


if __name__ == "__main__":
    run()
