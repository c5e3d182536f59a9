"""What uvicorn's protocol for HTTP/1.1 lacks: bounds, deadlines, and answers that arrive.

    a client that                                    is
    sends a header too large, or that is no HTTP     answered 431, 400, 501 or 505
    sends no whole header in `header_timeout_s`      answered 408
    sends its body slower than `MIN_RATE`            answered 408
    takes its answer slower than `MIN_RATE`          disconnected
    is one more than `max_connections`               answered 503, or takes an idle one's place
    does nothing while the memory is spent           answered 408 or disconnected (`Edge.make_room`)
    still sends when it is answered                  read from for a while, so that the answer
                                                     is not lost (`Connection._close`)

`Connection` serves one client with a parser of its own, `_Parser`. It hands requests over to the
application with `receive` and `send` that keep to the client's pace. `Edge` knows all connections.
"""

import asyncio
import contextvars
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app import problems
from app.errors import (
    BreedCAMError,
    HeaderTooLarge,
    MalformedRequest,
    RequestTimeout,
    TooManyConnections,
    UnsupportedCoding,
    UnsupportedVersion,
)
from app.metrics import Metrics
from app.security import ANSWER
from app.settings import Settings

__all__ = ["Connection", "Edge"]

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 32 * 1024
"""Of a request's line and its header fields together."""

MAX_HEADER_FIELDS = 100
"""As Apache has it."""

MIN_CHUNK = 64
"""Mean bytes of a chunk, once there are `FREE_CHUNKS`: each costs the parser time."""

FREE_CHUNKS = 4096
"""Chunks of any size."""

MIN_RATE = 1_000
"""Bytes a second that a client sends or takes, in each period of its deadline."""

STALLED_S = 1.0
"""A client that has done so little for so long may be ended, where others need its place."""

UNSENT_BYTES = 64 * 1024
"""Of an answer: so many may wait in the transport when the answer counts as sent."""

TICK_S = 0.25
"""How often is looked whether a slow client has taken anything."""

KEEP_BYTES = 1_000_000
"""The rest of a body that is read for the sake of the connection, after an early answer."""

LINGER_S = 30.0
"""For a client to read its answer, after which its connection is closed."""

LINGER_BODIES = 8
"""How much such a client may still send, in bodies of the largest size."""

REFUSED = 64
"""Connections beyond `max_connections` that are answered 503 at once; others are cut off."""

_ABSOLUTE = re.compile(rb"https?://([^/?#@\\]+)([/?][^#]*|)", re.IGNORECASE)


class Edge:
    """All connections: how many there may be, and which has to go where others need its place."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        """Take the limits from the settings.

        Args:
            settings: all of them.
            metrics: what is counted; default: its own.
        """
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.metrics.connections(lambda: len(self._open), settings.max_connections)
        self._open: set[Connection] = set()
        self._refused: set[Connection] = set()

    def admit(self, connection: "Connection") -> bool:
        """Whether there is a place for one more. One that does nothing makes way for it."""
        if len(self._open) >= self.settings.max_connections:
            # First those that only wait for their client to close, then those that have not yet
            # sent a request, then those between two.
            idle = [other for other in self._open if other.may_go]
            if not idle:
                self._refused.add(connection)
                return False
            first = min(idle, key=lambda other: other.rank)
            self._open.discard(first)
            first.abort()
        self._open.add(connection)
        return True

    @property
    def overrun(self) -> bool:
        """Whether there are too many even of those that are refused."""
        return len(self._refused) > REFUSED

    def forget(self, connection: "Connection") -> None:
        """It is closed."""
        self._open.discard(connection)
        self._refused.discard(connection)

    async def make_room(self, size: int) -> bool:
        """End the request that keeps the most bytes for the longest while its client does nothing.

        Args:
            size: the bytes that are lacking.

        Returns:
            Whether there was one. None is ended where all of them together do not keep so much.
        """
        stalled = [
            other for other in self._open if other.held_bytes and other.stalled_s >= STALLED_S
        ]
        if not stalled or sum(other.held_bytes for other in stalled) < size:
            return False
        worst = max(stalled, key=lambda other: other.held_bytes * other.stalled_s)
        log.info("a slow client is ended: the memory is needed")
        await worst.give_up()
        return True


class _Parser(h11.Connection):
    """h11's parser, with more bounds than that on the bytes of a header.

    Attributes:
        fault: what was wrong with the last event, if anything.
        held: whether the next request has to wait, since the last answer is not sent yet.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self.fault = h11.RemoteProtocolError("")
        self.held = False
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> Any:
        if self.their_state is h11.MUST_CLOSE and self.trailing_data[0]:
            return h11.PAUSED  # what follows the last request is ignored (RFC 9112, 9.6)
        if self.held and self.their_state is h11.IDLE:
            return h11.PAUSED
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._check(event)
                event = _in_origin_form(event)
            elif isinstance(event, h11.Data):
                self._count(event)
            return event
        except h11.RemoteProtocolError as error:
            self.fault = error
            raise

    def _check(self, request: h11.Request) -> None:
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("unsupported version", 505)
        size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
        if size > MAX_HEADER_BYTES or len(request.headers) > MAX_HEADER_FIELDS:
            raise h11.RemoteProtocolError("header too large", 431)
        names = {name for name, _ in request.headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            # Servers that disagree about which counts can be led to see different requests.
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        self._chunks = self._chunk_bytes = 0

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        if self._chunks > FREE_CHUNKS + self._chunk_bytes // MIN_CHUNK:
            raise h11.RemoteProtocolError("too many small chunks")


def _in_origin_form(request: h11.Request) -> h11.Request:
    """The request with a path for its target, and `Host` of what stood before it.

    A target in absolute form has to be taken, and its authority counts (RFC 9112, 3.2.2).
    """
    match = _ABSOLUTE.fullmatch(request.target)
    if match is None:
        return request
    authority, rest = match.groups()
    headers = [(name, value) for name, value in request.headers if name != b"host"]
    return h11.Request(
        method=request.method,
        target=rest if rest.startswith(b"/") else b"/" + rest,
        headers=[(b"host", authority), *headers],
        http_version=request.http_version,
    )


class _Pace:
    """How a client keeps up: `MIN_RATE` in each period.

    Attributes:
        moved_at: when the last bytes came or went, by the event loop's clock.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._moved = 0
        self._since = self.moved_at = asyncio.get_running_loop().time()

    @property
    def until(self) -> float:
        """When the client is too slow."""
        return self._since + self._period_s

    def move(self, count: int) -> None:
        """So many bytes have come or gone."""
        if count <= 0:
            return
        self.moved_at = asyncio.get_running_loop().time()
        self._moved += count
        if self._moved >= MIN_RATE * self._period_s:
            self._moved = 0
            self._since = self.moved_at


class _Transport:
    """A transport that is closed in its connection's way."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(H11Protocol):
    """One client's connection."""

    conn: _Parser

    def __init__(
        self,
        edge: Edge,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Set it up; uvicorn calls this with all but the first argument."""
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Parser()
        self._edge = edge
        self._settings = edge.settings
        self._application = self.app
        self.app = self._serve
        self._raw: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._served = 0
        self._unsent = False
        # Of a request in work:
        self._task: asyncio.Task[Any] | None = None
        self._pace: _Pace | None = None
        self._end: Callable[[], None] | None = None
        self._read_bytes = 0
        # Of a connection that is being closed:
        self._lingering = False
        self._dropped_bytes = 0

    # -- for the edge

    @property
    def _in_work(self) -> bool:
        return self.cycle is not None and (not self.cycle.response_complete or self._unsent)

    @property
    def may_go(self) -> bool:
        """Whether nothing is lost with it."""
        idle = self._lingering or not self._in_work
        return idle and self.loop.time() - self._since >= STALLED_S

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Of those that may go, the least goes first."""
        return not self._lingering, self._served > 0, self._since

    @property
    def stalled_s(self) -> float:
        """For how long its client keeps its request waiting."""
        return self.loop.time() - self._pace.moved_at if self._pace and self._end else 0.0

    @property
    def held_bytes(self) -> int:
        """Of its body or its answer."""
        return self._read_bytes + self._raw.get_write_buffer_size()

    async def give_up(self) -> None:
        """End its request, whose client does nothing; returns when its bytes are free."""
        if self._end and self._task:
            end, self._end = self._end, None
            with suppress(RuntimeError):  # its time is over just now
                end()
            await asyncio.wait({self._task}, timeout=STALLED_S)

    def abort(self) -> None:
        """Cut it off."""
        self._raw.abort()

    # -- what the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the client in, if there is a place for it."""
        self._raw = transport
        # Paused and resumed: the answer is not sent, and is sent.
        transport.set_write_buffer_limits(high=UNSENT_BYTES, low=0)
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self._close)))
        if self._edge.admit(self):
            self._set_timer(self._settings.header_timeout_s, self._late)
        elif self._edge.overrun:
            self.abort()
        else:
            self._refuse(TooManyConnections("There are as many connections as the service allows."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._edge.forget(self)
        self._set_timer(None)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what the client sends; drop it where the client has its answer."""
        if self._lingering:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BODIES * self._settings.max_bytes:
                self.abort()
            return
        super().data_received(data)

    def resume_writing(self) -> None:
        """All of the answer is with the kernel."""
        super().resume_writing()
        if self._unsent:
            self._unsent = self.conn.held = False
            self.on_response_complete()
            if self.conn.their_state is h11.IDLE and not self._raw.is_closing():
                self.handle_events()  # of a request that had to wait

    # -- what uvicorn's protocol calls

    def handle_events(self) -> None:
        """Take the parser's events, and set the deadline for what comes next."""
        super().handle_events()
        if self._in_work:
            self._set_timer(None)
        elif self._lingering or self._raw.is_closing():
            pass  # it has its deadline, or needs none
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._set_timer(None)
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._timer is None:
            # These are the first bytes of a header, or the rest of a body after its answer.
            self._unset_keepalive_if_required()
            self._set_timer(self._settings.header_timeout_s, self._late)

    def on_response_complete(self) -> None:
        """Go on to the next request, but not before the answer to the last is sent."""
        if self.flow.write_paused and not self._raw.is_closing():
            self._unsent = self.conn.held = True
            return
        self._served += 1
        self._since = self.loop.time()
        if not self._lingering:
            super().on_response_complete()

    def _should_upgrade(self) -> bool:
        """Never: `Upgrade: h2c` of curl and Java is a wish that may be ignored (RFC 9110, 7.8)."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Answer that the bytes are not a request; the parser knows why."""
        self._refuse(_error(self.conn.fault))

    def shutdown(self) -> None:
        """Let a request in work end, and close the connection after it."""
        if self._lingering:
            self._set_timer(STALLED_S, self.abort)
        elif self._unsent:
            self._close()
        elif not self._raw.is_closing():
            super().shutdown()

    # -- the request in work

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with `receive` and `send` that keep to the client's pace."""
        self._task = asyncio.current_task()
        self._read_bytes = 0
        pace = _Pace(self._settings.read_timeout_s)
        arrived = False

        async def paced_receive() -> Message:
            nonlocal arrived
            if arrived:  # it is only whether the client hangs up that is awaited
                return await receive()
            message = await self._received(receive, pace)
            arrived = not message.get("more_body", False)
            return message

        async def paced_send(message: Message) -> None:
            await self._sent()
            if message["type"] == "http.response.start" and self._must_close(scope, message):
                headers = [*message.get("headers", ()), CLOSE_HEADER]
                message = {**message, "headers": headers}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                await self._sent()

        await self._application(scope, paced_receive, paced_send)

    async def _received(self, receive: Receive, pace: _Pace) -> Message:
        """The next message about the body.

        Raises:
            RequestTimeout: the client is too slow.
        """
        try:
            async with asyncio.timeout_at(pace.until) as timeout:
                self._pace = pace
                self._end = lambda: timeout.reschedule(self.loop.time())
                message = await receive()
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise RequestTimeout("The body arrives too slowly, or not at all.") from error
        finally:
            self._pace = self._end = None
        size = len(message.get("body", b""))
        self._read_bytes += size
        pace.move(size)
        return message

    async def _sent(self) -> None:
        """Wait until what was written is sent; cut off a client that takes it too slowly."""
        if not self.flow.write_paused:
            return
        self._pace = pace = _Pace(self._settings.write_timeout_s)
        self._end = self.abort
        self._read_bytes = 0
        left = self._raw.get_write_buffer_size()
        try:
            while self.flow.write_paused:
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self.flow.drain()
                before, left = left, self._raw.get_write_buffer_size()
                pace.move(before - left)
                if self.flow.write_paused and self.loop.time() > pace.until:
                    log.info("a client that does not take its answer is disconnected")
                    self.abort()
                    await self.flow.drain()
        finally:
            self._pace = self._end = None

    def _must_close(self, scope: Scope, start: Message) -> bool:
        """Whether more of the body is to come than is read for the sake of the connection."""
        if self.conn.their_state is not h11.SEND_BODY:
            return False
        if start["status"] == RequestTimeout.status:
            return True
        length = dict(scope["headers"]).get(b"content-length", b"")
        known = length.isdigit() and int(length) <= KEEP_BYTES
        return self.cycle.waiting_for_100_continue or not known

    # -- the end of the connection

    def _late(self) -> None:
        """No request has come in its time."""
        self._timer = None
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(RequestTimeout("The header of the request did not arrive in time."))
        else:
            self._close()

    def _refuse(self, error: BreedCAMError) -> None:
        """Answer with a problem, without the application, and close."""
        response = contextvars.Context().run(problems.answer, error)
        response.headers.update(ANSWER)
        headers = [*self.server_state.default_headers, *response.raw_headers, CLOSE_HEADER]
        reason = HTTPStatus(error.status).phrase
        with suppress(h11.LocalProtocolError):  # it has its answer already, or begins to have it
            for event in (
                h11.Response(status_code=error.status, headers=headers, reason=reason),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self._raw.write(self.conn.send(event))
            self._edge.metrics.rejected(error.code)
            log.info("refused: %d %s %s", error.status, error, response.headers["X-Request-ID"])
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._close(linger=True)

    def _close(self, linger: bool = False) -> None:
        """Close the connection so that the client reads its answer.

        A socket that is closed while bytes of the client are unread resets the connection, and the
        client may lose what was sent to it. So the sending half alone is closed first, and what
        still comes is dropped, until the client closes its half or its time is over.
        """
        if self._lingering or self._raw.is_closing():
            return
        self._set_timer(None)
        self._unset_keepalive_if_required()
        unread = self.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if not (linger or unread or self._raw.get_write_buffer_size()):
            self._raw.close()
            return
        self._lingering = True
        self._since = self.loop.time()
        self.flow.resume_reading()
        self._raw.write_eof()
        self._set_timer(LINGER_S, self.abort)

    def _set_timer(self, seconds: float | None, then: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, then) if seconds and then else None


def _error(fault: h11.RemoteProtocolError) -> BreedCAMError:
    """What is wrong with a request, for its client."""
    if fault.error_status_hint == 431:
        return HeaderTooLarge(
            f"The header exceeds {MAX_HEADER_BYTES} bytes or {MAX_HEADER_FIELDS} fields."
        )
    if fault.error_status_hint == 501:
        return UnsupportedCoding("Of the transfer codings, `chunked` alone is supported.")
    if fault.error_status_hint == 505:
        return UnsupportedVersion("HTTP/1.0 and HTTP/1.1 are supported.")
    reason = re.sub(r"[:,(]? *(\(expected )?bytearray\(.*", "", str(fault), flags=re.DOTALL)
    return MalformedRequest(f"This is not a request of HTTP/1.1: {reason[:200]}.")
