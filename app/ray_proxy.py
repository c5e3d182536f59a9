"""What Ray's HTTP proxy lacks: limits of clients, problems, and another try where a replica ends.

Ray Serve has a proxy on each node: a process that takes requests and hands them to replicas. Where
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=app.ray_proxy:middlewares` is in its environment, clients
meet there what they meet in front of the service by itself:

    Connection     limits and deadlines of clients, as of `app.connections`
    RequestLog     an id and a line in the log
    security       keys, origins, hosts, prefix, headers, before a body is read
    Gate           the body, whole and within its limits, before a replica has the request;
                   the deadline; Ray's own refusals as problems; a second replica

Ray itself is not imported.
"""

import asyncio
import logging
import os
from functools import partial
from typing import Any, cast

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from app import heap, logs, problems, security
from app.admission import Admission
from app.bodies import limited
from app.clock import deadline
from app.connections import Connection
from app.edge import Edge
from app.errors import (
    BreedCAMError,
    ClientGone,
    DeadlineExceeded,
    EngineDown,
    NotReady,
    QueueFull,
    RequestTimeout,
)
from app.settings import Settings
from app.telemetry import REQUEST_ID_HEADER, RequestLog, log_context, request_id

__all__ = ["Gate", "middlewares"]

log = logging.getLogger(__name__)

TRIES = 2
"""Replicas that get a request. Not more: what ends one replica after the other is the request."""

RAYS_PATHS = "/-/"
"""Below it are pages of the proxy itself: its health and its routes."""

HINTS = frozenset(
    {
        b"serve-multiplexed-model-id",
        b"serve_multiplexed_model_id",
        b"x-request-disconnect-disabled",
        b"x-request-timeout-seconds",
        b"x-session-id",
    }
)
"""Header fields by which a client could tell Ray for how long, and where, its request runs."""

_RAYS_ERRORS: dict[int, tuple[type[BreedCAMError], str]] = {
    404: (NotReady, "No model is deployed yet."),
    408: (DeadlineExceeded, "There was no answer in time."),
    429: (QueueFull, "The service is handling as many requests as it allows."),
    503: (NotReady, "No replica is ready."),
}
"""What Ray's proxy answers by itself, in plain text. Classes, since an error that is raised again
and again holds the frames of each time, with their bodies."""


def middlewares() -> list[Middleware]:
    """Prepare this process, which is to be a proxy of Ray Serve; for Ray to call.

    Its settings come from the environment.

    Returns:
        What Ray puts around its own application, innermost first.
    """
    settings = Settings()
    logs.configure(settings.log_format, settings.log_level, log_context)
    heap.bound()
    edge = Edge(settings)
    admission = Admission(settings.max_pending, settings.max_pending_bytes)
    admission.make_room = edge.make_room
    # Ray makes uvicorn's configuration itself, and leaves these at their defaults.
    cast(dict[str, Any], HTTP_PROTOCOLS)["auto"] = partial(Connection, edge)
    os.environ["FORWARDED_ALLOW_IPS"] = ",".join(settings.trusted_proxies)
    app = FastAPI()  # never served: a list of what is around an application
    app.add_middleware(Gate, settings=settings, admission=admission)
    security.protect(app, settings)
    app.add_middleware(RequestLog, metrics=edge.metrics)
    return app.user_middleware[::-1]


class Gate:
    """ASGI middleware around Ray's own application, which hands requests to replicas.

    A replica never waits for a client: it gets the whole body at once, and the whole answer is here
    before any of it is sent. So a request whose replica ends can be given to another.
    """

    def __init__(self, app: ASGIApp, settings: Settings, admission: Admission) -> None:
        """Wrap `app`.

        Args:
            app: Ray's.
            settings: for the limits.
            admission: accounts for the bytes of bodies and answers.
        """
        self._app = app
        self._settings = settings
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: with a replica's answer or with a problem."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path.startswith(RAYS_PATHS):
            await self._app(scope, receive, send)
            return
        try:
            with self._admission.hold_bytes() as take:
                arrived = False
                try:
                    async with deadline(self._settings.deadline_s):
                        body = bytearray()
                        request = Request(scope, receive)
                        async for chunk in limited(request, self._settings.max_bytes, take):
                            body += chunk
                        arrived = True
                        answer = await self._answer(_outgoing(scope), receive, bytes(body))
                except DeadlineExceeded as error:
                    if arrived:
                        raise
                    raise RequestTimeout("The body arrives too slowly.") from error
                await take(sum(len(message.get("body", b"")) for message in answer))
                for message in answer:
                    await send(message)
        except BreedCAMError as error:
            await problems.answer(error)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, body: bytes) -> list[Message]:
        """The messages of a replica's answer.

        Raises:
            ClientGone: the client hung up.
            EngineDown: every replica that had the request has ended.
            BreedCAMError: Ray has refused the request.
        """
        for _ in range(TRIES):
            attempt = _Attempt(receive, body)
            await attempt.run(self._app, scope)
            if attempt.complete:
                attempt.raise_for_ray()
                return attempt.messages
            if attempt.client_gone:
                raise ClientGone("The connection was closed before the answer.")
            log.warning("a replica has ended with a request in work")
        raise EngineDown("The replica that had the request has ended.")


class _Attempt:
    """One try to have a request answered.

    Attributes:
        messages: of the answer, so far.
        client_gone: whether the client hung up meanwhile.
    """

    def __init__(self, receive: Receive, body: bytes) -> None:
        self.messages: list[Message] = []
        self.client_gone = False
        self._client = receive
        self._body: bytes | None = body

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have Ray's application answer; cancelled, it cancels that."""
        # In a task of its own: Ray's generators swallow a cancellation.
        task = asyncio.ensure_future(app(dict(scope), self._receive, self._send))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()):
            log.error("Ray's proxy failed", exc_info=error)

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end. If not, its replica has ended."""
        return (
            len(self.messages) > 1
            and self.messages[0]["type"] == "http.response.start"
            and not self.messages[-1].get("more_body", False)
        )

    def raise_for_ray(self) -> None:
        """Raise what Ray's proxy has answered by itself: the application's errors are problems.

        Raises:
            BreedCAMError: it is an error, and none of the application's.
        """
        start = self.messages[0]
        status = start["status"]
        media_type = Headers(raw=[(k.lower(), v) for k, v in start["headers"]]).get("content-type")
        if status >= 400 and media_type != problems.MEDIA_TYPE:
            log.warning("Ray's proxy answered %d", status)
            kind, detail = _RAYS_ERRORS.get(
                status, (BreedCAMError, "The service failed to handle the request.")
            )
            raise kind(detail)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._client()
        self.client_gone = message["type"] == "http.disconnect"
        return message

    async def _send(self, message: Message) -> None:
        self.messages.append(message)


def _outgoing(scope: Scope) -> Scope:
    """The request as Ray gets it: with our id, and without hints for Ray."""
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in HINTS]
    outgoing = {**scope, "headers": headers}
    MutableHeaders(scope=outgoing)[REQUEST_ID_HEADER] = request_id()
    return outgoing
