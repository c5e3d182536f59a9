"""h11's parser of HTTP/1.1, with more bounds on what a client may send."""

import re
from typing import Any

import h11

from app.errors import (
    BreedCAMError,
    HeaderTooLarge,
    MalformedRequest,
    UnsupportedCoding,
    UnsupportedVersion,
)

__all__ = ["Parser"]

MAX_HEADER_BYTES = 32 * 1024
"""Of a request's line and its header fields together."""

MAX_HEADER_FIELDS = 100
"""As Apache has it."""

MIN_CHUNK = 64
"""Mean bytes of a chunk, once there are `FREE_CHUNKS`: each costs the parser time."""

FREE_CHUNKS = 4096
"""Chunks of any size."""

_TLS = b"\x16\x03"
"""How a client begins that speaks TLS: a handshake record of SSL 3.0 or later (RFC 8446, 5.1)."""

_ABSOLUTE = re.compile(rb"https?://([^/?#@\\]+)([/?][^#]*|)", re.IGNORECASE)


class Parser(h11.Connection):
    """h11's parser, with more bounds than that on the bytes of a header.

    Attributes:
        held: whether the next request has to wait, since the last answer is not sent yet.
    """

    def __init__(self) -> None:
        """Start, as a server."""
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self._fault = h11.RemoteProtocolError("")
        self.held = False
        self._is_tls = False
        self._chunks = self._chunk_bytes = 0

    @property
    def error(self) -> BreedCAMError:
        """What was wrong with the last event, for its client."""
        fault = self._fault
        if self._is_tls:
            return MalformedRequest(
                "This is TLS, but the service speaks plain HTTP here. Use http://, or a proxy that "
                "terminates TLS."
            )
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

    def receive_data(self, data: bytes) -> None:
        """As h11 has it."""
        if data.startswith(_TLS) and self.their_state is h11.IDLE and not self.trailing_data[0]:
            self._is_tls = True
        super().receive_data(data)

    def next_event(self) -> Any:
        """As h11 has it.

        Raises:
            RemoteProtocolError: the bytes are no request, or exceed a bound; see `error`.
        """
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
            self._fault = error
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
