"""`app.http_parser`: what is no request, and what is one in another form."""

import ssl

import h11
import pytest

from app.errors import BreedCAMError
from app.http_parser import FREE_CHUNKS, MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MIN_CHUNK, Parser

HOST = b"Host: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + b"\r\n"


def parse(data: bytes) -> tuple[Parser, list[h11.Event]]:
    """A parser after all events of these bytes."""
    parser = Parser()
    events: list[h11.Event] = []
    parser.receive_data(data)
    while isinstance(event := parser.next_event(), h11.Event):
        events.append(event)
    return parser, events


def fault(data: bytes) -> BreedCAMError:
    """The error in these bytes."""
    parser = Parser()
    parser.receive_data(data)
    try:
        while isinstance(parser.next_event(), h11.Event):
            pass
    except h11.RemoteProtocolError:
        return parser.error
    pytest.fail("no error")


def head(*fields: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"POST / HTTP/" + version, b"Host: x", *fields, b"", b""])


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"nonsense\r\n\r\n", 400, "not a request"),
        (head(version=b"2.0"), 505, "HTTP/1.1"),
        (head(b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400, "both Content-Length"),
        (head(b"Transfer-Encoding: gzip"), 501, "`chunked` alone"),
        (head(*[b"A: b"] * MAX_HEADER_FIELDS), 431, f"{MAX_HEADER_FIELDS} fields"),
        (head(b"A: " + b"b" * MAX_HEADER_BYTES), 431, f"{MAX_HEADER_BYTES} bytes"),
        (b"GET /" + b"a" * (MAX_HEADER_BYTES + 1), 431, f"{MAX_HEADER_BYTES} bytes"),
        (CHUNKED + b"1\r\nx\r\n" * 2 * FREE_CHUNKS, 400, "too many small chunks"),
    ],
)
def test_faults(data: bytes, status: int, words: str) -> None:
    error = fault(data)
    assert error.status == status
    assert words in str(error)
    assert "bytearray" not in str(error)


def tls_hello() -> bytes:
    """What a client of TLS sends first."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="x")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


@pytest.mark.parametrize("rest", [b"", b"\n\n", b"\r\n\r\n"])  # h11 takes these for its end
def test_tls_is_recognized(rest: bytes) -> None:
    error = fault(tls_hello() + rest)
    assert (error.status, error.code) == (400, "malformed-request")
    assert "speaks plain HTTP" in str(error)


def test_a_body_may_begin_as_tls_does() -> None:
    parser = Parser()
    parser.receive_data(CHUNKED)
    assert isinstance(parser.next_event(), h11.Request)
    parser.receive_data(b"\x16\x03\r\n")  # where the size of a chunk belongs
    with pytest.raises(h11.RemoteProtocolError):
        parser.next_event()
    assert "TLS" not in str(parser.error)


def test_as_much_as_is_allowed() -> None:
    _, [request, _] = parse(head(*[b"A: b"] * (MAX_HEADER_FIELDS - 1)))
    assert isinstance(request, h11.Request)
    assert len(request.headers) == MAX_HEADER_FIELDS
    chunk = b"%x\r\n" % MIN_CHUNK + bytes(MIN_CHUNK) + b"\r\n"
    _, events = parse(CHUNKED + chunk * 2 * FREE_CHUNKS + b"0\r\n\r\n")
    bodies = [event.data for event in events if isinstance(event, h11.Data)]
    assert sum(map(len, bodies)) == 2 * FREE_CHUNKS * MIN_CHUNK


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://dogs.example/host?a=b", b"dogs.example", b"/host?a=b"),
        (b"http://dogs.example?a=b", b"dogs.example", b"/?a=b"),
        (b"HTTPS://dogs.example:8443/host", b"dogs.example:8443", b"/host"),
        (b"/host?u=http://other/", b"x", b"/host?u=http://other/"),
    ],
)
def test_absolute_targets_name_their_host(target: bytes, host: bytes, path: bytes) -> None:
    _, [request, _] = parse(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n")
    assert isinstance(request, h11.Request)
    assert request.target == path
    assert sorted(request.headers) == [(b"a", b"b"), (b"host", host)]


def test_a_request_waits_behind_an_answer_that_is_not_sent() -> None:
    parser = Parser()
    parser.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    parser.held = True
    assert parser.next_event() is h11.PAUSED
    parser.held = False
    assert isinstance(parser.next_event(), h11.Request)


def test_what_follows_the_last_request_is_ignored() -> None:
    close = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    parser, events = parse(close + b"nonsense\r\n\r\n")
    assert len(events) == 2  # the request and its end
    assert parser.next_event() is h11.PAUSED
