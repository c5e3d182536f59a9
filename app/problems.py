"""Errors as RFC 9457 problem documents: what a client gets, and what OpenAPI says of it.

Each kind of exception that can reach the edge has a handler here: the error tree's own, FastAPI's
refusals of parameters, Starlette's of paths and verbs, and whatever nobody foresaw.
"""

import re
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware

from app.errors import BreedCAMError, RequestError
from app.schemas import Problem
from app.telemetry import REQUEST_ID_HEADER, answered_with, request_id

__all__ = ["MEDIA_TYPE", "add_handlers", "answer", "responses"]

MEDIA_TYPE = "application/problem+json"

_DESCRIPTIONS = {
    400: "A parameter that cannot be right, an unknown target, or no image",
    401: "No API key, or one that the service does not know",
    406: "No representation that `Accept` allows",
    408: "The body does not arrive, or too slowly",
    409: "The model does not carry the method, or the rule is not calibrated for it",
    413: "Too many bytes or pixels, or too costly to decode",
    415: "Neither an accepted content type nor an allowed image format",
    421: "`Host` names no host that the service answers for",
    422: "An allowed format that does not decode",
    429: "Too many requests in work; see `Retry-After`",
    500: "The model failed",
    503: "Starting or stopping, too many connections, or the engine is down",
    504: "Past the deadline",
}

# Errors that Starlette raises; any other status is `http-<status>`.
_HTTP_CODES = {404: "not-found", 405: "method-not-allowed"}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for problems of these statuses; without any, of all but 401 and 421."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {
        status: {"description": description, "content": content}
        for status, description in _DESCRIPTIONS.items()
        if status in (statuses or _DESCRIPTIONS.keys() - {401, 421})
    }


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
    return _response(error.status, error.code, error.title, str(error), error.headers)


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, BreedCAMError)
    return answer(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(
        # The first part of a location is where the parameter stands: `query`.
        f"`{'.'.join(str(part) for part in fault['loc'][1:])}`: {_in_plain_words(fault)}"
        for fault in error.errors()
    )
    return _response(RequestError.status, RequestError.code, RequestError.title, detail)


def _in_plain_words(fault: dict[str, Any]) -> str:
    """What pydantic says, for people who do not know pydantic."""
    if fault["type"] == "extra_forbidden":
        return "there is no such parameter; /docs lists them"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return re.sub(r"<\w+\.\w+: ('\w+')>", r"\1", message)  # an enum's member: its value alone


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, f"http-{error.status_code}")
    title = code.replace("-", " ").capitalize()
    headers = dict(error.headers) if error.headers else None
    return _response(error.status_code, code, title, str(error.detail), headers)


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
