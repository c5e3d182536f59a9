"""What uvicorn's protocol for HTTP/1.1 lacks: bounds, deadlines, and answers that arrive.

    a client that                                    is
    sends a header too large, or that is no HTTP     answered 431, 400, 501 or 505
    sends no whole header in `header_timeout_s`      answered 408
    sends its body slower than `MIN_RATE`            answered 408
    takes its answer slower than `MIN_RATE`          disconnected
    sends a photo while every place is taken         answered 429 (`app.refusal`)
    is one more than `max_connections`               answered 503, or takes an idle one's place
    does nothing while the memory is spent           answered 408 or disconnected (`Edge.make_room`)
    still sends when it is answered                  read from for a while, so that the answer
                                                     is not lost (`Connection._close`)

`Connection` serves one client with a parser of its own (`app.http_parser`). It hands requests over
to the application with `receive` and `send` that keep to the client's pace (`app.pace`). `Edge`
knows all connections (`app.edge`).
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app import problems
from app.edge import STALLED_S, Edge
from app.errors import BreedCAMError, RequestTimeout, TooManyConnections
from app.http_parser import Parser
from app.pace import Pace
from app.refusal import Refusal
from app.security import ANSWER

__all__ = ["Connection"]

log = logging.getLogger(__name__)

UNSENT_BYTES = 64 * 1024
"""Of an answer: so many may wait in the transport when the answer counts as sent."""

TICK_S = 0.25
"""How often is looked whether a slow client has taken anything."""

KEEP_BYTES = 1_000_000
"""The rest of a body that is read for the sake of the connection, after an early answer."""

LINGER_S = 30.0
"""For a client to read its answer, after which its connection is closed. While the service stops,
it is hardly more than `STALLED_S` once the answer is with the kernel."""

LINGER_BODIES = 8
"""How much such a client may still send, in bodies of the largest size."""


class _Transport:
    """A transport that is closed in its connection's way.

    Attributes:
        holding: whether what is written waits for what is written next. An answer's header leaves
            with its body: one call of the kernel in place of two. A large body is not copied for
            that.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._held = b""
        self.close = close
        self.holding = False

    def write(self, data: bytes) -> None:
        if len(data) > UNSENT_BYTES and self._held:
            self._transport.write(self._held)
            self._held = b""
        data, self._held = self._held + data, b""
        if self.holding:
            self._held = data
        else:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(H11Protocol):
    """One client's connection."""

    conn: Parser

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
        self.conn = Parser()
        self._edge = edge
        self._settings = edge.settings
        self._application = self.app
        self.app = self._serve
        self._raw: asyncio.Transport
        self._wrapped: _Transport
        self._timer: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._served = 0
        self._unsent = False
        # Of a request in work:
        self._task: asyncio.Task[Any] | None = None
        self._pace: Pace | None = None
        self._end: Callable[[], None] | None = None
        self._read_bytes = 0
        # Of a request that is refused by its header:
        self._unread_bytes = 0
        # Of a connection that is being closed:
        self._stopping = False
        self._lingering = False
        self._dropped_bytes = 0

    # -- for the edge

    @property
    def _in_work(self) -> bool:
        return self.cycle is not None and (not self.cycle.response_complete or self._unsent)

    @property
    def _at_rest(self) -> bool:
        """Whether nothing of a next request is with the parser."""
        return self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

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
        self._wrapped = _Transport(transport, self._close)
        super().connection_made(cast(asyncio.Transport, self._wrapped))
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
        if self._unread_bytes:
            size = min(self._unread_bytes, len(data))
            self._unread_bytes -= size
            data = data[size:]
        refusal = self._edge.refusal
        if data and refusal and self._at_rest and not self.flow.write_paused:
            data = self._refuse_early(refusal, data)
        if data:
            super().data_received(data)
        else:
            self._set_deadline()

    def resume_writing(self) -> None:
        """All of the answer is with the kernel."""
        super().resume_writing()
        if self._unsent:
            self._unsent = self.conn.held = False
            self.on_response_complete()
            closing = self._lingering or self._raw.is_closing()
            if self.conn.their_state is h11.IDLE and not closing:
                self.handle_events()  # of a request that had to wait

    # -- what uvicorn's protocol calls

    def handle_events(self) -> None:
        """Take the parser's events, and set the deadline for what comes next."""
        super().handle_events()
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._in_work:
            self._set_timer(None)
        elif self._lingering or self._raw.is_closing():
            pass  # it has its deadline, or needs none
        elif self._at_rest and not self._unread_bytes:
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
        self._refuse(self.conn.error)

    def shutdown(self) -> None:
        """Let a request in work end, and close the connection after it."""
        self._stopping = True
        if self._lingering:
            self._linger()
        elif self._unsent:
            self._close()
        elif not self._raw.is_closing():
            super().shutdown()

    # -- the request in work

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with `receive` and `send` that keep to the client's pace."""
        self._task = asyncio.current_task()
        self._read_bytes = 0
        pace = Pace(self._settings.read_timeout_s)
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
            starts = message["type"] == "http.response.start"
            if starts and self._must_close(scope, message):
                headers = [*message.get("headers", ()), CLOSE_HEADER]
                message = {**message, "headers": headers}
            self._wrapped.holding = starts
            await send(message)
            if not starts and not message.get("more_body", False):
                await self._sent()

        await self._application(scope, paced_receive, paced_send)

    async def _received(self, receive: Receive, pace: Pace) -> Message:
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
        self._pace = pace = Pace(self._settings.write_timeout_s)
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

    # -- a request that is refused by its header

    def _refuse_early(self, refusal: Refusal, data: bytes) -> bytes:
        """Answer 429 if the service is full; what is left of `data` is the parser's."""
        if (head := refusal.head(data)) is None:
            return data
        close = head.close or head.body_bytes > KEEP_BYTES
        client = self._client_of(head.forwarded_for)
        self._raw.write(refusal.answer(head, client, self.server_state.default_headers, close))
        end = head.size + head.body_bytes
        self._unread_bytes = max(0, end - len(data))
        self._served += 1
        self._since = self.loop.time()
        self._set_timer(None)
        if close:
            self._close()
            return b""
        return data[end:]

    def _client_of(self, forwarded_for: str) -> tuple[str, int] | None:
        """The address of a request's client: the peer's, or what a trusted proxy says.

        As uvicorn's middleware has it, which stands around the application.
        """
        proxies, peer = self._application, self.client[0] if self.client else None
        if forwarded_for and isinstance(proxies, ProxyHeadersMiddleware):
            trusted = proxies.trusted_hosts
            if peer in trusted:
                host, port = trusted.get_trusted_client_address(forwarded_for)
                return (host, port) if host else self.client
        return self.client

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
            self._log(error, response.headers["X-Request-ID"])
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._close(linger=True)

    def _log(self, error: BreedCAMError, request_id: str) -> None:
        """Write the line of a request that the application does not see."""
        client = self.client[0] if self.client else ""
        fields = {
            "status": error.status,
            "client": client,
            "request_id": request_id,
            "error": error.code,
        }
        log.info(
            "refused: %d %s %s client=%s error=%s",
            error.status,
            error,
            request_id,
            client,
            error.code,
            extra={"fields": fields},
        )

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
        unread = self._unread_bytes or self.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if not (linger or unread or self._raw.get_write_buffer_size()):
            self._raw.close()
            return
        self._lingering = True
        self._since = self.loop.time()
        self.flow.resume_reading()
        self._raw.write_eof()
        self._linger()

    def _linger(self) -> None:
        """Wait for the client; while the service stops, hardly longer than its answer takes."""
        if self._stopping:
            unsent = self._raw.get_write_buffer_size() > 0
            self._set_timer(STALLED_S, partial(self._lingered, unsent))
        else:
            self._set_timer(LINGER_S, self.abort)

    def _lingered(self, unsent: bool) -> None:
        if unsent and self.loop.time() - self._since < LINGER_S:
            self._linger()
        else:
            self.abort()

    def _set_timer(self, seconds: float | None, then: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, then) if seconds and then else None
