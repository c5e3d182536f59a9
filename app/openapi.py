"""What the OpenAPI document says beside what FastAPI reads off the routes.

Routes declare their bodies, pictures and refusals with `PHOTO`, `RATING`, `picture` and `refusals`;
`describe` completes the document: schemas that several operations share, headers, examples, tags.
"""

import contextvars
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.admission import NO_PLACE
from app.errors import (
    BreedCAMError,
    DeadlineExceeded,
    MethodUnavailable,
    NotAcceptable,
    NotReady,
    QueueFull,
    RequestError,
    RequestTimeout,
    StorageFull,
    TooManyBytes,
    Unauthorized,
    UndecodableImage,
    UnknownHost,
    UnsupportedMediaType,
)
from app.problems import MEDIA_TYPE, answer
from app.schemas import Colormap, MethodName, Problem, Rating, Space, Status

__all__ = ["DESCRIPTION", "PHOTO", "RATING", "describe", "extend", "picture", "refusals"]

Document = dict[str, Any]

DESCRIPTION = """\
Send a photo as the request body, with curl for example: `curl -T photo.jpg URL` (PUT) or
`curl -F file=@photo.jpg URL` (POST). Both methods are answered in the same way; this document lists
POST alone, as it lists GET alone where HEAD is answered too. Everything else is a query parameter.

Errors are problem details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). A path that does
not exist is answered 404, another method 405 with `Allow`, and a header over 32 KiB or 100 fields
431.
"""


def _headers(*names: str) -> Document:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schema(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


_TAGS = {
    "photos": "A photo in; breeds, heatmap, box and overlap out.",
    "model": "What is served.",
    "health": "For load balancers and orchestrators. They need no key.",
    "ratings": "Which heatmaps people prefer.",
}

_ENUMERATIONS = {
    "Colormap": get_args(Colormap),
    "ConfidenceLevel": ("ok", "low"),
    "MethodName": get_args(MethodName),
    "Space": get_args(Space),
    "Status": get_args(Status),
}
"""Their values, by the name of the schema."""

_EXAMPLES = Path(__file__).with_name("examples.json")
"""Real answers, by path; `python -m tests.examples` writes them anew."""

_REQUEST_ID = "fea031b79d04401bb7b534524b39c717"

_HEADERS = {
    "X-Request-ID": (
        "Id of the request, which the log has too: the client's own, if it sent one of up to 64 "
        "letters, digits and `_.:-`",
        {"type": "string"},
        _REQUEST_ID,
    ),
    "Retry-After": ("Seconds until another try may succeed", {"type": "integer"}, 1),
    "WWW-Authenticate": ("The scheme to use", {"type": "string"}, "Bearer"),
    "BreedCAM-Target": (
        "The explained breed, percent-encoded UTF-8 where it is not plain ASCII",
        {"type": "string"},
        "border terrier",
    ),
    "BreedCAM-Probability": ("Its probability", {"type": "number"}, 0.999944),
    "BreedCAM-Confidence": (
        "`ok` or `low`; absent where confidence is not calibrated",
        _schema("ConfidenceLevel"),
        "ok",
    ),
    "BreedCAM-Status": ("`status` of the explanation", {"type": "string"}, "ok"),
    "BreedCAM-Rule": ("What the box is put around", {"type": "string"}, "fused"),
    "BreedCAM-Box": (
        "xmin,ymin,xmax,ymax in photo pixels; absent where there is no box",
        {"type": "string"},
        "0,23.4375,500,348.6328125",
    ),
    "BreedCAM-IoU": (
        "IoU with the best of the boxes given; absent without any",
        {"type": "string"},
        "0.970732",
    ),
}
"""Description, schema and example, by name."""

_ALWAYS = ("X-Request-ID", "Retry-After", "WWW-Authenticate")
"""Those that every answer has which declares them."""


_BINARY = {"type": "string", "format": "binary"}

_UPLOAD = {
    "title": "PhotoUpload",
    "description": "A photo as a form sends it.",
    "type": "object",
    "required": ["file"],
    "properties": {"file": _BINARY},
    "additionalProperties": False,
}

PHOTO = {
    "requestBody": {
        "required": True,
        "description": "The photo. It is also taken without a content type, or with one that "
        "clients send by themselves: `application/x-www-form-urlencoded` (curl, urllib) or "
        "`text/plain`. The file's content decides. PUT, which `curl -T photo.jpg` sends, is "
        "answered like POST.",
        "content": {
            "multipart/form-data": {"schema": _schema("PhotoUpload")},
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
"""An operation's members where its body is a photo."""

RATING = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _schema("Rating")}},
    }
}
"""An operation's members where its body is a rating."""


def picture(media_types: Sequence[str]) -> dict[int | str, Document]:
    """An operation's answer 200 where it may also be a file, of one of these media types."""
    response = {
        "content": {media_type: {"schema": _BINARY} for media_type in media_types},
        "headers": _headers(*(name for name in _HEADERS if name.startswith("BreedCAM-"))),
        "description": "JSON; or, where `Accept` prefers them, the overlay alone as a picture, or "
        "the heatmaps alone as a NumPy file of float32 `[h, w]` (of `/compare`, `[n, h, w]`), with "
        "the figures in the headers `BreedCAM-*`; those of several explanations with semicolons "
        "between",
    }
    return {200: response}


_REFUSALS: dict[int, tuple[str, BreedCAMError]] = {
    400: (
        "A parameter or a body that cannot be right; an unknown target, or no image",
        RequestError("`top_k` must be at least 1."),
    ),
    401: (
        "No API key, or one that the service does not know",
        Unauthorized("The service does not know this API key."),
    ),
    406: (
        "No representation that `Accept` allows",
        NotAcceptable("This endpoint returns application/json."),
    ),
    408: (
        "The body does not arrive, or too slowly",
        RequestTimeout("The body arrives too slowly for an answer within 10 s."),
    ),
    409: (
        "The model does not carry the method, or the rule is not calibrated for it",
        MethodUnavailable(
            "CAM needs a head of global average pooling and one Dense layer, which model 'x' does "
            "not have. Use /gradcam."
        ),
    ),
    413: (
        "Too many bytes or pixels, or too costly to decode",
        TooManyBytes("The upload exceeds the limit of 20000000 bytes."),
    ),
    415: (
        "Neither an accepted content type nor an allowed image format",
        UnsupportedMediaType("The body is text, not a photo."),
    ),
    421: (
        "`Host` names no host that the service answers for",
        UnknownHost("`Host` names no host that this service answers for."),
    ),
    422: (
        "An allowed format that does not decode",
        UndecodableImage("The image makes its decoder fail."),
    ),
    429: ("Too many requests in work; see `Retry-After`", QueueFull(NO_PLACE)),
    500: (
        "The model or the service failed",
        BreedCAMError("An unexpected error occurred in the service."),
    ),
    503: (
        "Starting or stopping, too many connections, or the engine is down",
        NotReady("The service is starting or stopping."),
    ),
    504: (
        "Past the deadline",
        DeadlineExceeded("There was no answer within 10 s of the request's arrival."),
    ),
    507: (
        "No space left for what is to be kept",
        StorageFull("There is no space left for ratings."),
    ),
}
"""What an answer of the status means, and an error that is answered so."""


def refusals(*statuses: int, details: Mapping[int, str] = {}) -> dict[int | str, Document]:
    """An operation's `responses` for problems of these statuses.

    Args:
        statuses: default: all that a photo's request may get, but those of keys and hosts.
        details: what problems say in the examples, where it is not what those of photos say.
    """
    responses: dict[int | str, Document] = {}
    for status in sorted(statuses or _REFUSALS.keys() - {401, 421, 507}):
        description, error = _REFUSALS[status]
        if status in details:
            error = type(error)(details[status])
        # In a context of its own: the request that asks for the document is not refused.
        response = contextvars.Context().run(answer, error)
        problem = json.loads(bytes(response.body)) | {"request_id": _REQUEST_ID}
        responses[status] = {
            "description": description,
            "headers": _headers("X-Request-ID", *error.headers),
            "content": {MEDIA_TYPE: {"schema": _schema("Problem"), "example": problem}},
        }
    return responses


def extend(app: FastAPI, change: Callable[[Document], None]) -> None:
    """Have the document changed after it is made.

    It is made once and kept, but changed each time: the change has to leave its own result alone.
    """
    before = app.openapi

    def openapi() -> Document:
        document = before()
        change(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def describe(app: FastAPI) -> None:
    """Complete the document of an application with all its routes."""
    extend(app, _complete)


def _complete(document: Document) -> None:
    if "tags" in document:
        return
    examples = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    operations = {
        path: operation
        for path, methods in document["paths"].items()
        for operation in methods.values()  # one per path
    }
    for path, operation in operations.items():
        for response in operation["responses"].values():
            response.setdefault("headers", {}).update(_headers("X-Request-ID"))
        example = examples[path]
        if "request" in example:
            _json(operation["requestBody"])["examples"] = {"example": example["request"]}
        if "response" in example:
            _json(operation["responses"]["200"])["examples"] = {"example": example["response"]}
    tags = {tag for operation in operations.values() for tag in operation["tags"]}
    document["tags"] = [
        {"name": name, "description": text} for name, text in _TAGS.items() if name in tags
    ]
    components = document["components"]
    components["headers"] = {
        name: {"description": text, "schema": schema, "example": example}
        | ({"required": True} if name in _ALWAYS else {})
        for name, (text, schema, example) in _HEADERS.items()
    }
    components["schemas"] |= _schemas(ratings="ratings" in tags)
    _name_enumerations(document)
    components["schemas"] = dict(sorted(components["schemas"].items()))


def _json(message: Document) -> Document:
    content: Document = message["content"]["application/json"]
    return content


def _schemas(*, ratings: bool) -> Document:
    """The schemas of what routes read and write by themselves."""
    _, schemas = models_json_schema(
        [(Problem, "serialization"), (Rating, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    own: Document = schemas["$defs"] | {"PhotoUpload": _UPLOAD}
    return own if ratings else {name: own[name] for name in own.keys() - {"Rating"}}


def _name_enumerations(document: Document) -> None:
    """Make one schema of an enumeration that is spelt out wherever it is used.

    Generators would otherwise make a class of it for each use.
    """
    schemas = document["components"]["schemas"]

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for member in node:
                visit(member)
        elif isinstance(node, dict):
            for name, values in _ENUMERATIONS.items():
                if node.get("enum") == list(values):
                    del node["enum"], node["type"]
                    node.pop("title", None)
                    node |= _schema(name)
                    schemas[name] = {"title": name, "type": "string", "enum": list(values)}
            for member in node.values():
                visit(member)

    visit([document["paths"], list(schemas.values())])
