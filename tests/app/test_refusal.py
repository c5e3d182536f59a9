"""Early refusals beside the ordinary ones: the same application behind two kinds of connections."""

import asyncio
import json
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import pytest
import uvicorn
from pydantic import SecretStr
from uvicorn.server import ServerState

from app.admission import Admission
from app.connections import KEEP_BYTES, UNSENT_BYTES, Connection
from app.edge import Edge
from app.http_parser import Parser
from app.main import create_app
from app.metrics import Metrics
from app.refusal import Refusal
from app.routes import PHOTO_ROUTES
from app.service import Service as Served
from app.settings import Settings
from tests.app.conftest import ENDPOINTS, JPEG
from tests.app.exposition import Scrape
from tests.app.services import LONG

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of a service, and Python's own."""
    return "asyncio", {"use_uvloop": request.param}


MakeService = Callable[..., Served]

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Answer:
    status_line: str
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.status_line.split()[1])

    def without_id(self) -> tuple[str, dict[str, str], dict[str, Any]]:
        """All of it, once it is checked that the body has the header's id."""
        headers, document = dict(self.headers), json.loads(self.body)
        assert document.pop("request_id") == headers.pop("x-request-id") != ""
        assert int(headers["content-length"]) == len(self.body)
        return self.status_line, headers, document


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes = b"") -> Answer:
        """The next answer, after these bytes are sent."""
        self.writer.write(data)
        async with asyncio.timeout(LONG):
            status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            fields = [line.partition(": ") for line in lines if line]
            headers = {name.lower(): value for name, _, value in fields}
            assert len(headers) == len(fields)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status_line, headers, body)

    async def closed(self) -> bool:
        async with asyncio.timeout(LONG):
            return await self.reader.read() == b""


@dataclass
class Service:
    """An application whose only place is taken, behind connections that refuse early or do not."""

    served: Served
    accept: Callable[[bool], Connection]
    connections: list[Connection] = field(default_factory=list)
    ports: dict[bool, int] = field(default_factory=dict)
    clients: list[Client] = field(default_factory=list)
    place: ExitStack = field(default_factory=ExitStack)
    """Closed, it gives the place back."""

    async def client(self, *, early: bool = True) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.ports[early]))
        self.clients.append(client)
        return client

    @property
    def was_early(self) -> bool:
        """Whether the newest connection has had no request that went through the application."""
        return self.connections[-1].cycle is None

    async def received(self, data: bytes) -> None:
        """Until the newest connection's parser holds this of a request."""
        async with asyncio.timeout(LONG):
            while (  # noqa: ASYNC110
                not self.connections or self.connections[-1].conn.trailing_data[0] != data
            ):
                await asyncio.sleep(0.001)

    def scrape(self) -> Scrape:
        document, _ = self.served.metrics.expose("text/plain")
        return Scrape(document.decode())


@asynccontextmanager
async def full(make_service: MakeService, **changes: Any) -> AsyncIterator[Service]:
    served = make_service(max_pending=1, **changes)
    settings = served.settings
    app = create_app(settings, served)
    state = ServerState()
    state.default_headers = [(b"server", b"uvicorn"), (b"date", b"today")]
    edges = {early: Edge(settings, served.metrics) for early in (True, False)}
    edges[True].refusal = app.state.refusal
    loop = asyncio.get_running_loop()
    async with app.router.lifespan_context(app):

        def accept(early: bool) -> Connection:
            options: dict[str, Any] = {
                "timeout_keep_alive": settings.keep_alive_s,
                "forwarded_allow_ips": list(settings.trusted_proxies),
            }
            config = uvicorn.Config(app, ws="none", log_config=None, **options)
            connection = Connection(edges[early], config, state, {})
            service.connections.append(connection)
            return connection

        service = Service(served, accept)
        servers = []
        for early in (True, False):
            server = await loop.create_server(partial(accept, early), "127.0.0.1", 0)
            service.ports[early] = server.sockets[0].getsockname()[1]
            servers.append(server)
        try:
            with service.place:
                service.place.enter_context(served.admission.admit())
                yield service
        finally:
            for server in servers:
                server.close()
            for connection in service.connections:
                connection.abort()
            for client in service.clients:
                client.writer.close()
            await asyncio.sleep(0)


def upload(path: str = "/gradcam", *fields: str, length: int = 0, body: bytes = b"") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {length or len(body)}",
        "Content-Type: image/jpeg",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


# -- the answer

ORDINARY = {
    **{path: upload(path, body=JPEG) for path in ENDPOINTS},
    "put": upload("/cam", body=JPEG).replace(b"POST", b"PUT"),
    "no body": upload(),
    "no length": b"POST /cam HTTP/1.1\r\nHost: x\r\n\r\n",
    "query": upload("/gradcam?size=1024&target=%F0&top_k=0", body=JPEG),
    "id": upload("/cam", "X-Request-ID: mine:1.2_3-4", body=JPEG),
    "long id": upload("/cam", f"X-REQUEST-ID:\t {'a' * 64} ", body=JPEG),
    "bad id": upload("/cam", "X-Request-ID: <b>", body=JPEG),
    "keep-alive": upload("/predict", "Connection: Keep-Alive", "Accept: */*", body=JPEG),
    "close": upload("/predict", "Connection: close", body=JPEG),
    "an origin": upload("/predict", "Origin: https://example.org", body=JPEG),
    "forwarded": upload("/cam", "X-Forwarded-For: 198.51.100.9, 192.0.2.7 ,127.0.0.1"),
    "forwarded by a port": upload("/cam", "x-forwarded-for: [2001:db8::7]:80"),
    "forwarded for nobody": upload("/cam", "X-Forwarded-For:", "X-Forwarded-Proto: https"),
    "forwarded for nonsense": upload("/cam", "X-Forwarded-For: ,<b>:c:d"),
    "30 kB": upload(body=bytes(30_000)),
    "the most that is read": upload(length=KEEP_BYTES),
    "20 MB": upload(length=20_000_000),
    "more than is taken": upload(length=99_999_999_999),
}


OFFERED = {"id": "mine:1.2_3-4", "long id": "a" * 64}
"""Ids that are kept."""


async def test_it_is_the_ordinary_answer(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Header by header, in the log field by field, and in the metrics."""
    seen: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for early, compared in seen.items():
        async with full(make_service) as service:
            before = counts(service)
            for name, request in ORDINARY.items():
                caplog.clear()
                with caplog.at_level(logging.INFO, "app.access"):
                    answer = await (await service.client(early=early)).ask(request)
                    record = await access(caplog)
                assert answer.status == 429
                assert service.was_early is early
                request_id = answer.headers["x-request-id"]
                assert request_id == OFFERED.get(name, request_id)
                assert len(request_id) == 32 or name in OFFERED
                fields = dict(record.fields)  # type: ignore[attr-defined]
                assert fields.pop("request_id") == request_id
                assert f" ms {request_id} client=" in record.getMessage()
                assert fields.pop("duration_ms") >= 0
                compared[name] = answer.without_id(), record.levelno, record.msg, fields
            after = counts(service)
            compared["counts"] = {key: value - before.get(key, 0) for key, value in after.items()}
    assert seen[True] == seen[False]
    assert sum(seen[True]["counts"].values()) >= 3 * len(ORDINARY)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("proxies", "client"),
    [
        (("127.0.0.0/8",), "192.0.2.7"),
        (("127.0.0.1", "192.0.2.7"), "198.51.100.9"),
        (("*",), "198.51.100.9"),
        (("192.0.2.7",), "127.0.0.1"),
        ((), "127.0.0.1"),
    ],
)
async def test_the_client_is_whom_a_trusted_proxy_names(
    make_service: MakeService,
    caplog: pytest.LogCaptureFixture,
    proxies: tuple[str, ...],
    client: str,
    early: bool,
) -> None:
    request = upload("/cam", "X-Forwarded-For: 198.51.100.9, 192.0.2.7")
    async with full(make_service, trusted_proxies=proxies) as service:
        with caplog.at_level(logging.INFO, "app.access"):
            assert (await (await service.client(early=early)).ask(request)).status == 429
            record = await access(caplog)
        assert service.was_early is early
        assert record.fields["client"] == client  # type: ignore[attr-defined]


async def access(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The one line of the access log, which may come after the answer."""
    async with asyncio.timeout(LONG):
        while not (  # noqa: ASYNC110
            lines := [line for line in caplog.records if line.name == "app.access"]
        ):
            await asyncio.sleep(0.01)
    [record] = lines  # uvicorn may write one of its own
    return record


def counts(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All that is counted of requests."""
    return {
        (name, labels): value
        for name, series in service.scrape().samples.items()
        for labels, value in series.items()
        if name.endswith(("_total", "_count", "_in_progress"))
        and not name.startswith(("process_", "python_"))
    }


def test_without_a_full_house_all_is_as_ever(make_service: MakeService) -> None:
    served = make_service(max_pending=2, deadline_s=0.2)  # which `stop` waits for
    refusal = create_app(served.settings, served).state.refusal
    assert refusal.head(upload()) is None
    served.start()
    with served.admission.admit(), served.admission.admit():
        assert refusal.head(upload()) is not None
        served.stop()
        assert refusal.head(upload()) is None  # it is 503 now
    assert refusal.head(upload()) is None


# -- all else

UNUSUAL = {
    "chunked": b"POST /cam HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both": upload("/cam", "Transfer-Encoding: chunked"),
    "expect": upload("/cam", "Expect: 100-continue", length=4),
    "upgrade": upload("/cam", "Connection: Upgrade", "Upgrade: h2c"),
    "forwarded twice": upload("/cam", "x-forwarded-for: a", "x-forwarded-for: 192.0.2.7"),
    "1.0": b"POST /cam HTTP/1.0\r\nHost: x\r\n\r\n",
    "2.0": b"POST /cam HTTP/2.0\r\nHost: x\r\n\r\n",
    "no host": b"POST /cam HTTP/1.1\r\n\r\n",
    "two hosts": upload("/cam", "Host: y"),
    "two lengths": upload("/cam", "Content-Length: 1"),
    "the same length twice": upload("/cam", "Content-Length: 0"),
    "a list of lengths": b"POST /cam HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
    "a signed length": b"POST /cam HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n",
    "a folded line": upload("/cam", "A: b", " c"),
    "a space before the colon": upload("/cam", "A : b"),
    "no colon": upload("/cam", "A"),
    "a control character": upload("/cam", "A: \x00"),
    "beyond ASCII": upload("/cam", "A: é"),
    "bare line feeds": upload("/cam").replace(b"\r\n", b"\n"),
    "a bare carriage return": upload("/cam", "A: b\rContent-Length: 9"),
    "absolute form": upload("http://other/cam"),
    "an escaped path": upload("/c%61m"),
    "another path": upload("/nowhere"),
    "another method": upload("/cam").replace(b"POST", b"PATCH"),
    "two ids": upload("/cam", "X-Request-ID: a", "X-Request-ID: b"),
    "a long header": upload("/cam", f"A: {'b' * 5000}"),
    "too long a header": upload("/cam", f"A: {'b' * 50_000}"),
    "many fields": upload("/cam", *(f"A{index}: b" for index in range(80))),
    "too many fields": upload("/cam", *(f"A{index}: b" for index in range(200))),
    "no request": b"POST\r\n\r\n",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_whatever_is_unusual_goes_the_ordinary_way(name: str) -> None:
    assert refusing().head(UNUSUAL[name]) is None


def refusing() -> Refusal:
    """For a service that is ready and has no place."""
    admission = Admission(max_pending=0, max_bytes=0)
    return Refusal(Settings(), admission, Metrics(), PHOTO_ROUTES, lambda: True)


async def test_unusual_requests_are_answered(make_service: MakeService) -> None:
    """As without early refusals, on both kinds of connections."""
    async with full(make_service, header_timeout_s=5) as service:
        for name, request in UNUSUAL.items():
            answers = []
            for early in (True, False):
                client = await service.client(early=early)
                answers.append((await client.ask(request)).without_id())
            assert answers[0] == answers[1], name
            assert int(answers[0][0].split()[1]) in (400, 404, 405, 429, 431, 505), name


def test_no_header_is_read_in_another_way_than_by_the_parser() -> None:
    """A request that a proxy sees otherwise could smuggle another."""
    refusal, rng = refusing(), random.Random(0)
    tokens = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"0", b"9", b"-", b"\x00", b"\x80"]
    tokens += [b"Content-Length: 7", b"Transfer-Encoding: chunked", b"Host: y", b"close", b"\x0b"]
    seeds = [upload("/cam?a=b", "Connection: close", length=12), *ORDINARY.values()]
    seeds = [seed.split(b"\r\n\r\n")[0] + b"\r\n\r\n" for seed in seeds]
    accepted = 0
    for _ in range(20_000):
        data = rng.choice(seeds)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(data))
            end = start + rng.choice((0, 0, 1, 2))
            data = data[:start] + rng.choice(tokens) + data[end:]
        head = refusal.head(data)
        if head is None:
            continue
        accepted += 1
        parser = Parser()
        parser.receive_data(data)
        request = parser.next_event()
        assert isinstance(request, h11.Request)
        fields = dict(request.headers)
        assert len(fields) == len(list(request.headers))
        assert request.method.decode() == head.method
        assert head.method in ("POST", "PUT")
        assert request.http_version == b"1.1"
        assert request.target.partition(b"?")[0] == head.path.encode()
        assert head.body_bytes == int(fields.get(b"content-length", b"0"))
        assert head.close == (fields.get(b"connection", b"").lower() == b"close")
        assert head.request_id.encode() == fields.get(b"x-request-id", b"")
        assert data[head.size :] == parser.trailing_data[0]
        assert b"transfer-encoding" not in fields
    assert 2000 < accepted < 18_000


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"api_keys": (SecretStr("0123456789abcdef0123456789abcdef"),)}, 401),
        ({"trusted_hosts": ("example.org",)}, 421),
    ],
)
async def test_keys_and_hosts_are_checked_first(
    make_service: MakeService, changes: dict[str, Any], status: int
) -> None:
    async with full(make_service, **changes) as service:
        assert (await (await service.client()).ask(upload())).status == status


async def test_an_origin_is_answered_for_where_origins_are_named(
    make_service: MakeService,
) -> None:
    origin = "https://example.org"
    async with full(make_service, cors_origins=(origin,)) as service:
        answer = await (await service.client()).ask(upload("/cam", f"Origin: {origin}"))
        assert answer.status == 429
        assert answer.headers["access-control-allow-origin"] == origin
        assert (await (await service.client()).ask(upload("/cam"))).status == 429
        assert service.was_early


async def test_a_prefix_may_be_there_or_not(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    async with full(make_service, root_path="/dogs") as service:
        with caplog.at_level(logging.INFO, "app.access"):
            for path in ("/cam", "/dogs/cam"):
                assert (await (await service.client()).ask(upload(path))).status == 429
                assert service.was_early
        assert (await (await service.client()).ask(upload("/dogs/dogs/cam"))).status == 404
    assert caplog.text.count("POST /dogs/cam 429 ") == 2


async def test_a_prefix_that_is_a_route_too(make_service: MakeService) -> None:
    """What is redirected is not refused."""
    async with full(make_service, root_path="/cam") as service:
        for early in (True, False):
            assert (await (await service.client(early=early)).ask(upload("/cam"))).status == 308
        assert (await (await service.client()).ask(upload("/cam/cam"))).status == 429
        assert service.was_early


# -- how it arrives


async def test_a_header_may_come_in_pieces(make_service: MakeService) -> None:
    """Refused early or not, by whether its end has come with its start."""
    request = upload("/cam", "X-Request-ID: mine", body=JPEG)
    size = request.index(b"\r\n\r\n") + 4
    async with full(make_service) as service:
        for cut in (1, 4, 30, size - 3, size - 2, size - 1, size, size + 1, len(request) - 1):
            client = await service.client()
            client.writer.write(request[:cut])
            if cut < size:
                await service.received(request[:cut])
                client.writer.write(request[cut:])
            answer = await client.ask()
            assert answer.status == 429
            assert answer.headers["x-request-id"] == "mine"
            assert service.was_early is (cut >= size), cut
            if cut >= size:
                client.writer.write(request[cut:])
            assert (await client.ask(GET)).status == 200
            service.connections.clear()


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("size", [1, 100, 100_000])
async def test_requests_in_a_row_are_answered_in_a_row(
    make_service: MakeService, early: bool, size: int
) -> None:
    """Those that are refused, those that are not, and none behind the last."""
    requests = [
        upload("/cam", "X-Request-ID: 0", body=JPEG),
        GET.replace(b"\r\n\r\n", b"\r\nX-Request-ID: 1\r\n\r\n"),
        upload("/gradcam", "X-Request-ID: 2", body=JPEG),
        upload("/cam", "X-Request-ID: 3"),
        upload("/nowhere", "X-Request-ID: 4", body=JPEG),
        upload("/cam", "X-Request-ID: 5", "Transfer-Encoding: chunked"),
    ]
    requests[-1] = requests[-1].replace(b"Content-Length: 0\r\n", b"") + b"0\r\n\r\n"
    requests += [
        upload("/predict", "X-Request-ID: 6", "Connection: close", body=JPEG),
        upload("/cam", "X-Request-ID: 7"),
    ]
    data = b"".join(requests)
    async with full(make_service) as service:
        client = await service.client(early=early)
        if size == 1:  # the largest part of the bodies is left whole
            pieces = [bytes([byte]) for byte in requests[0][:300]] + [data[300:]]
        else:
            pieces = [data[start : start + size] for start in range(0, len(data), size)]
        for piece in pieces:
            client.writer.write(piece)
            await asyncio.sleep(0)
        answers = [await client.ask() for _ in range(7)]
        assert [answer.status for answer in answers] == [429, 200, 429, 429, 404, 429, 429]
        assert [answer.headers["x-request-id"] for answer in answers] == list("0123456")
        assert await client.closed()


async def test_a_refused_request_keeps_no_later_one_out(make_service: MakeService) -> None:
    """The place becomes free while the body of a refused request arrives."""
    async with full(make_service) as service:
        client = await service.client()
        assert (await client.ask(upload(length=100))).status == 429
        client.writer.write(bytes(50))
        service.place.close()
        accepted = upload("/predict", "X-Request-ID: mine", body=JPEG)
        answer = await client.ask(bytes(50) + accepted + upload("/nowhere"))
        assert answer.status == 200
        assert answer.headers["x-request-id"] == "mine"
        assert (await client.ask()).status == 404


# -- bodies


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("size", [0, 1, 30_000, KEEP_BYTES])
async def test_the_connection_goes_on_after_the_body(
    make_service: MakeService, early: bool, size: int
) -> None:
    async with full(make_service, keep_alive_s=60) as service:
        client = await service.client(early=early)
        for _ in range(3):
            answer = await client.ask(upload(length=size))
            assert answer.status == 429
            assert "connection" not in answer.headers
            client.writer.write(bytes(size // 2))
            await client.writer.drain()
            client.writer.write(bytes(size - size // 2))
            assert service.was_early is early
        assert (await client.ask(GET)).status == 200
        assert (await client.ask(upload(body=bytes(size)) + GET)).status == 429
        assert (await client.ask()).status == 200


@pytest.mark.parametrize("early", [True, False])
async def test_clients_that_send_all_first_get_the_answer(
    make_service: MakeService, early: bool
) -> None:
    async with full(make_service) as service:
        client = await service.client(early=early)
        answer = await client.ask(upload(body=bytes(20_000_000)))
        assert answer.status == 429
        assert answer.headers["connection"] == "close"
        await client.writer.drain()
        client.writer.write_eof()
        assert await client.closed()
        assert service.was_early is early


@pytest.mark.parametrize("early", [True, False])
async def test_a_body_that_does_not_come_ends_the_connection(
    make_service: MakeService, early: bool
) -> None:
    async with full(make_service, header_timeout_s=0.3, keep_alive_s=3600) as service:
        client = await service.client(early=early)
        assert (await client.ask(upload(length=100))).status == 429
        client.writer.write(bytes(99))
        assert await client.closed()


@pytest.mark.parametrize("early", [True, False])
async def test_the_time_between_requests_begins_after_the_body(
    make_service: MakeService, early: bool
) -> None:
    async with full(make_service, header_timeout_s=3600, keep_alive_s=0.3) as service:
        client = await service.client(early=early)
        assert (await client.ask(upload(length=100))).status == 429
        client.writer.write(bytes(100))
        assert await client.closed()


@pytest.mark.parametrize("early", [True, False])
async def test_a_client_that_wants_to_close(make_service: MakeService, early: bool) -> None:
    """What it sends behind its request is no request."""
    async with full(make_service) as service:
        client = await service.client(early=early)
        answer = await client.ask(upload("/cam", "Connection: close", body=JPEG) + GET)
        assert answer.status == 429
        assert answer.headers["connection"] == "close"
        assert await client.closed()


async def test_answers_that_are_not_taken_do_not_pile_up(make_service: MakeService) -> None:
    async with full(make_service) as service:
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.connect(("127.0.0.1", service.ports[True]))
        client = Client(*await asyncio.open_connection(sock=plug))
        service.clients.append(client)
        async with asyncio.timeout(LONG):
            while not service.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            [connection] = service.connections
            accepted = connection.transport.get_extra_info("socket")
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            # One request a packet, so that each could be refused early.
            while not connection.flow.write_paused:
                client.writer.write(upload())
                await asyncio.sleep(0)
            for _ in range(1000):
                client.writer.write(upload())
                await asyncio.sleep(0)
        assert connection.held_bytes < UNSENT_BYTES + 10_000
        assert not service.was_early
