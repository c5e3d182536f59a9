"""The answer 429 from a request's header alone, while every place in the service is taken.

What refusals cost is lost to the requests that are answered, and at ten times the peak load there
are nine of the former to each of the latter. So an ordinary request for a photo is refused as soon
as its header is there, without a task, a scope or middleware. All that is out of the ordinary goes
through h11 to `app.routes.Room`, whose answer is the same.
"""

import contextvars
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from app import problems, telemetry
from app.admission import NO_PLACE, Admission
from app.errors import QueueFull
from app.metrics import Metrics
from app.security import ANSWER
from app.settings import Settings

__all__ = ["Head", "Refusal"]

MAX_BYTES = 4096
"""Of a header that is ordinary."""

_HEAD = re.compile(
    # Of what h11 takes, the part that leaves nothing to interpretation: no folded lines, no bare
    # line feeds, ASCII alone.
    rb"(POST|PUT) (/[!-~]*) HTTP/1\.1\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[\t -~]*\r\n){1,64})\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,15}")

_UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade"))


@dataclass(frozen=True, slots=True)
class Head:
    """The header of an ordinary request for a photo.

    Attributes:
        method: POST or PUT.
        path: of the route.
        request_id: as the client offers it.
        forwarded_for: the addresses that proxies have named; empty if none.
        size: in bytes.
        body_bytes: that follow.
        close: whether the client wants the connection closed after the answer.
    """

    method: str
    path: str
    request_id: str
    forwarded_for: str
    size: int
    body_bytes: int
    close: bool


class Refusal:
    """Recognises ordinary requests for photos while every place is taken, and answers them 429."""

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        metrics: Metrics,
        routes: Mapping[str, Any],
        ready: Callable[[], bool],
    ) -> None:
        """Prepare the answer.

        Args:
            settings: the service's.
            admission: knows whether every place is taken.
            metrics: what is counted.
            routes: those that take a photo, by path.
            ready: whether the service is. If not, its answer is another.
        """
        self._admission = admission
        self._metrics = metrics
        self._routes = routes
        self._ready = ready
        self._root_path = settings.root_path
        self._paths = {
            prefix.encode() + path.encode(): path
            for path in routes
            for prefix in ("", settings.root_path)
            if prefix + path != settings.root_path  # which is redirected
        }
        self._unusual = _UNUSUAL | ({b"origin"} if settings.cors_origins else set())
        response = contextvars.Context().run(problems.answer, QueueFull(NO_PLACE))
        response.headers.update(ANSWER)
        request_id = response.headers[telemetry.REQUEST_ID_HEADER].encode()
        for name in (telemetry.REQUEST_ID_HEADER, "Content-Length"):  # differ by request
            del response.headers[name]
        self._body = bytes(response.body).split(request_id)  # another id goes between
        self._fields = _lines(response.raw_headers)

    @staticmethod
    def comes_first(settings: Settings) -> bool:
        """Whether no other check does, those of keys and hosts."""
        return not settings.keys and "*" in settings.trusted_hosts

    def head(self, data: bytes) -> Head | None:
        """The header with which `data` begins, if its request is to be refused here.

        Returns:
            None where the service has a place or is not ready, and for all but ordinary requests.
        """
        if not (self._admission.full and self._ready()):
            return None
        match = _HEAD.match(data, 0, MAX_BYTES)
        path = self._paths.get(match[2].partition(b"?")[0]) if match else None
        if match is None or path is None:
            return None
        lines = match[3].splitlines()
        fields = {
            name.lower(): value.strip(b" \t")
            for name, _, value in (line.partition(b":") for line in lines)
        }
        length = fields.get(b"content-length", b"0")
        connection = fields.get(b"connection", b"").lower()
        if (
            len(fields) < len(lines)  # a name comes twice
            or b"host" not in fields
            or not self._unusual.isdisjoint(fields)
            or not _LENGTH.fullmatch(length)
            or connection not in (b"", b"keep-alive", b"close")
        ):
            return None
        return Head(
            method=match[1].decode(),
            path=path,
            request_id=fields.get(telemetry.REQUEST_ID_HEADER.lower().encode(), b"").decode(),
            forwarded_for=fields.get(b"x-forwarded-for", b"").decode(),
            size=match.end(),
            body_bytes=int(length),
            close=connection == b"close",
        )

    def answer(
        self,
        head: Head,
        client: tuple[str, int] | None,
        default_headers: Iterable[tuple[bytes, bytes]],
        close: bool,
    ) -> bytes:
        """The whole answer; the request is counted and logged.

        Args:
            head: of the request.
            client: its address and port.
            default_headers: of every answer of the server: its name and the date.
            close: whether the connection is closed after it.
        """
        self._metrics.request_begun()
        exchange = telemetry.Exchange.begin(head.request_id)
        request_id = exchange.id.encode()
        body = request_id.join(self._body)
        exchange.status, exchange.reason = QueueFull.status, QueueFull.code
        exchange.bytes_out = len(body)
        scope = {
            "method": head.method,
            "path": self._root_path + head.path,
            "route": self._routes[head.path],
            "client": client,
        }
        telemetry.record(self._metrics, scope, exchange)
        own = [
            (telemetry.REQUEST_ID_HEADER.lower().encode(), request_id),
            (b"content-length", str(len(body)).encode()),
            *([(b"connection", b"close")] if close else []),
        ]
        return b"".join(
            (_STATUS_LINE, _lines(default_headers), self._fields, _lines(own), b"\r\n", body)
        )


_STATUS_LINE = f"HTTP/1.1 {QueueFull.status} {HTTPStatus(QueueFull.status).phrase}\r\n".encode()


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in headers])
