"""Errors as RFC 9457 problem documents: what a client gets.

Each kind of exception that can reach the edge has a handler here: the error tree's own, FastAPI's
refusals of parameters, Starlette's of paths and verbs, and whatever nobody foresaw.
"""

import uuid
from typing import get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware

from app.errors import BreedCAMError, RequestError
from app.schemas import Problem
from app.telemetry import REQUEST_ID_HEADER, answered_with, request_id
from app.wording import listed, near, sentences

__all__ = ["MEDIA_TYPE", "add_handlers", "answer"]

MEDIA_TYPE = "application/problem+json"

_HOW_TO_SEND = (
    "Send the photo as the body, as `curl -T photo.jpg URL` or `curl -F file=@photo.jpg URL` do."
)

_LONGEST = 100
"""Characters of an unknown path that are compared with the known ones."""

# Errors that Starlette raises; any other status is `http-<status>`.
_HTTP_CODES = {404: "not-found", 405: "method-not-allowed"}


def add_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem document.

    Call it before other middleware is added: the answer to an unforeseen error then passes through
    all of that, as every other answer does.
    """
    app.add_exception_handler(BreedCAMError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)  # raised by middleware
    app.add_middleware(ServerErrorMiddleware, handler=_unknown)


def answer(error: BreedCAMError) -> Response:
    """The problem document of an error of the tree."""
    detail = str(error)
    if error.retry_after_s is not None:
        detail += f" Try again in {error.retry_after_s} s."
    return _response(error.status, error.code, error.title, detail, error.headers)


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, BreedCAMError)
    return answer(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The first part of a location is where the parameter stands: `query`.
    faults = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]
    query = get_type_hints(request.scope["endpoint"])["query"]
    parameters = request.query_params
    repeated = {name for name in parameters if len(parameters.getlist(name)) > 1}
    detail = "; ".join(sentences(faults, "`{}`", list(query.model_fields), repeated))
    return _response(RequestError.status, RequestError.code, RequestError.title, f"{detail}.")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, f"http-{error.status_code}")
    title = code.replace("-", " ").capitalize()
    headers = dict(error.headers) if error.headers else {}
    detail = str(error.detail)
    if error.status_code == 404:
        detail = _no_such_path(request)
    elif error.status_code == 405:
        # Files (`StaticFiles`) say nothing of what they allow.
        allowed = sorted(headers.get("Allow", "GET, HEAD").split(", "))
        headers["Allow"] = ", ".join(allowed)
        detail = f"Use {listed('{}', allowed, 'or')}."
        if "PUT" in allowed:  # as photos alone may be sent
            detail += f" {_HOW_TO_SEND}"
    return _response(error.status_code, code, title, detail, headers)


def _no_such_path(request: Request) -> str:
    """What to say of it: the path that was most likely meant, or all that there are."""
    scope = request.scope
    prefix = scope.get("app_root_path", scope.get("root_path", ""))  # the latter also a mount's
    paths = dict.fromkeys(
        str(route.path) for route in iter_route_contexts(request.app.routes) if route.methods
    )
    path = "/" + scope["path"].removeprefix(prefix)[:_LONGEST].lower().strip("/")
    # `/predict/`, `/v1/predict`, `/predict/photo.jpg` (of `curl -T photo.jpg URL/predict/`)
    guesses = [path, f"/{path.rpartition('/')[2]}", path.rpartition("/")[0]]
    meant = [guess for guess in guesses if guess in paths and guess != "/"]
    meant = meant or [similar for guess in guesses for similar in near(guess, paths)]
    if meant:
        return f"There is no such path. Did you mean `{prefix}{meant[0]}`?"
    return f"There is no such path. There are {listed(f'`{prefix}{{}}`', paths)}."


async def _unknown(_: Request, error: Exception) -> Response:
    """Whatever nobody foresaw: logged in full by the server, one line for the client."""
    kind = BreedCAMError
    return _response(
        kind.status, kind.code, kind.title, "An unexpected error occurred in the service."
    )


def _response(
    status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    answered_with(code)
    problem = Problem(
        type=f"urn:breedcam:error:{code}",
        title=title,
        status=status,
        detail=detail,
        request_id=request_id() or uuid.uuid4().hex,  # a request that cannot be read has none
    )
    # `RequestLog` gives it to every response but to those of errors outside of it.
    headers = {REQUEST_ID_HEADER: problem.request_id, **(headers or {})}
    return Response(problem.model_dump_json(), status, headers, media_type=MEDIA_TYPE)
