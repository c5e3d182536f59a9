"""What is recorded of each request: an id, a line in the log, metrics, a span."""

import logging
import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import Metrics
from app.tracing import Tracing

__all__ = [
    "REQUEST_ID_HEADER",
    "Exchange",
    "RequestLog",
    "answered_with",
    "log_context",
    "record",
    "request_id",
]

log = logging.getLogger("app.access")

REQUEST_ID_HEADER = "X-Request-ID"
UNMATCHED = "unmatched"
"""The route of paths that are none of the service's."""

_SAFE_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_PATH_LENGTH = 256
"""Characters of a path that are logged."""


@dataclass(slots=True)
class Exchange:
    """A request and its answer.

    Attributes:
        id: the client's, or a new one.
        trace_id: empty where there is no trace.
        begun: seconds of `time.monotonic`.
        route: the template that the path matched.
        status: 500 unless an answer starts.
        reason: the code of the problem that it is answered with.
        bytes_in: of the body, as far as it was read.
        bytes_out: of the answer's body.
    """

    id: str
    trace_id: str
    begun: float = field(default_factory=time.monotonic)
    route: str = UNMATCHED
    status: int = 500
    reason: str = ""
    bytes_in: int = 0
    bytes_out: int = 0

    @classmethod
    def begin(cls, offered_id: str, trace_id: str = "") -> Self:
        """A request has arrived; its client's id is kept if it is a sane one."""
        sane = _SAFE_ID.fullmatch(offered_id)
        return cls(id=offered_id if sane else uuid.uuid4().hex, trace_id=trace_id)


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def request_id() -> str:
    """The id of the request being handled; empty outside of one."""
    exchange = _current.get()
    return exchange.id if exchange else ""


def answered_with(code: str) -> None:
    """The request being handled is answered with a problem of this code."""
    if exchange := _current.get():
        exchange.reason = code


def log_context() -> dict[str, str]:
    """What a log record says of the request being handled."""
    exchange = _current.get()
    if exchange is None:
        return {}
    context = {"request_id": exchange.id}
    if exchange.trace_id:
        context["trace_id"] = exchange.trace_id
    return context


class RequestLog:
    """ASGI middleware: gives each request an id (the client's, if it sent a sane one); records it.

    The id comes back in `X-Request-ID` and in every problem. Of each request there is a line in
    the log, which has neither its query nor its body, and it is counted in the metrics.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics | None = None, tracing: Tracing | None = None
    ) -> None:
        """Wrap `app`.

        Args:
            app: handles the requests.
            metrics: where they are counted; default: nowhere that is seen.
            tracing: whose middleware is around this one.
        """
        self._app = app
        self._metrics = metrics or Metrics()
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        exchange = Exchange.begin(offered, self._tracing.trace_id() if self._tracing else "")
        # Never reset: the handler of unforeseen errors, outside of here, reads the id too, and
        # each request has a context of its own.
        _current.set(exchange)

        async def receive_counted() -> Message:
            message = await receive()
            exchange.bytes_in += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = exchange.id
                self._name_span(scope, exchange)  # which ends with the last byte
            else:
                exchange.bytes_out += len(message.get("body", b""))
            await send(message)

        self._metrics.request_begun()
        try:
            await self._app(scope, receive_counted, send_with_id)
        except Exception:
            answered_with("internal-error")
            self._name_span(scope, exchange)
            raise
        finally:
            record(self._metrics, scope, exchange)

    def _name_span(self, scope: Scope, exchange: Exchange) -> None:
        if self._tracing:
            self._tracing.answered(scope["method"], _route(scope), exchange.id, exchange.reason)


def record(metrics: Metrics, scope: Scope, exchange: Exchange) -> None:
    """Count a request that has ended, and write its line."""
    seconds = time.monotonic() - exchange.begun
    exchange.route = _route(scope)
    metrics.request_ended(
        scope["method"],
        exchange.route,
        exchange.status,
        seconds,
        reason=exchange.reason,
        trace_id=exchange.trace_id,
    )
    if log.isEnabledFor(logging.INFO):
        fields = _fields(scope, exchange, seconds)
        details = ("client", "bytes_in", "bytes_out", "error", "trace_id")
        log.info(
            "%s %s %d %.1f ms %s %s",
            fields["method"],
            fields["path"],
            exchange.status,
            1000 * seconds,
            exchange.id,
            " ".join(f"{name}={fields[name]}" for name in details if name in fields),
            extra={"fields": fields},
        )


def _fields(scope: Scope, exchange: Exchange, seconds: float) -> dict[str, Any]:
    """What the log has of a request."""
    client = scope.get("client")
    fields = {
        "method": scope["method"],
        # As it stood in the request: a path's spaces and line breaks are no part of the line.
        "path": quote(scope["path"], safe="/:@!$&'()*+,;=~", errors="replace")[:_PATH_LENGTH],
        "route": exchange.route,
        "status": exchange.status,
        "duration_ms": round(1000 * seconds, 1),
        "client": quote(client[0], safe=":.%") if client else "",
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "request_id": exchange.id,
    }
    if exchange.reason:
        fields["error"] = exchange.reason
    if exchange.trace_id:
        fields["trace_id"] = exchange.trace_id
    return fields


def _route(scope: Scope) -> str:
    """The template that a path has matched; there are only as many as the application has."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    if "endpoint" not in scope:
        return UNMATCHED
    root, mounted = scope.get("app_root_path"), scope.get("root_path", "")
    if root is not None:  # files under a mount
        return f"{mounted.removeprefix(root)}/{{path}}"
    return str(scope["path"]).removeprefix(mounted)  # of Starlette's own: without parameters
