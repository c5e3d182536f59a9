"""`app.edge` and `app.connections` on the test's own event loop: what depends on order."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h11
import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app import connections
from app.admission import Admission
from app.connections import Connection
from app.edge import STALLED_S, Edge
from app.errors import BreedCAMError, QueueFull
from app.metrics import Metrics
from app.problems import answer
from app.settings import Settings
from tests.app.exposition import Scrape

pytestmark = pytest.mark.anyio

ROOM = 50_000
LARGE = 5_000_000
"""Bytes of an answer that no socket's buffers take."""

OFTEN_S = 0.3
"""In place of `STALLED_S`, where a test waits for it to pass several times."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def endless() -> AsyncIterator[bytes]:
    yield b"begun"
    await asyncio.Event().wait()


class Service:
    """An edge, its port, and what it serves: bodies are held and counted, paths say the rest."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.edge = Edge(settings, self.metrics)
        self.admission = Admission(settings.max_pending, settings.max_pending_bytes)
        self.admission.make_room = self.edge.make_room
        self.connections: list[Connection] = []
        self.clients: list[Streams] = []
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response: Response
        try:
            if scope["path"] == "/large":  # before its body is read
                response = Response(bytes(LARGE))
            elif scope["path"] == "/endless":
                response = StreamingResponse(endless())
            elif scope["path"] == "/early":
                response = Response("early")
            elif scope["path"] == "/host":
                response = Response(f"{request.headers['host']} {scope['query_string'].decode()}")
            else:
                with self.admission.hold_bytes() as take:
                    total = 0
                    async for chunk in request.stream():
                        await take(len(chunk))
                        total += len(chunk)
                response = Response(str(total))
        except ClientDisconnect:
            return
        except BreedCAMError as error:
            response = answer(error)
        await response(scope, receive, send)

    def accept(self) -> Connection:
        connection = Connection(
            self.edge,
            uvicorn.Config(
                self,
                ws="none",
                log_config=None,
                timeout_keep_alive=self.settings.keep_alive_s,  # type: ignore[arg-type]
            ),
            ServerState(),
            {},
        )
        self.connections.append(connection)
        return connection

    async def plug(self, data: bytes = b"") -> Streams:
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # does not grow
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=plug)
        self.clients.append((reader, writer))
        writer.write(data)
        return reader, writer

    async def stalled(self) -> None:
        """Until every client has done nothing for so long that it may be ended."""
        await until(lambda: all(c.stalled_s >= STALLED_S for c in self.connections))


@asynccontextmanager
async def serving(**changes: object) -> AsyncIterator[Service]:
    sizes = {"max_bytes": ROOM, "max_pending_bytes": ROOM}
    service = Service(Settings.model_validate({**sizes, **changes}))
    server = await asyncio.get_running_loop().create_server(service.accept, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        for connection in service.connections:
            connection.abort()
        for _, writer in service.clients:
            writer.close()
        await asyncio.sleep(0)


def upload(path: str, body: bytes, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + body


async def status(reader: asyncio.StreamReader) -> int:
    """Of an answer, which is read to its end."""
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    return int(head.split()[1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


GET = b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n"


# -- room for others


async def test_clients_that_hold_nothing_are_not_ended_for_memory() -> None:
    async with serving() as service:
        innocent, writer = await service.plug(upload("/", b"", 100))
        await service.plug(upload("/", bytes(40_000), 50_000))
        await until(lambda: service.admission.held_bytes == 40_000)
        await service.stalled()
        reader, _ = await service.plug(upload("/", bytes(30_000), 30_000))
        assert await status(reader) == 200
        writer.write(bytes(100))
        assert await status(innocent) == 200


async def test_nobody_is_ended_where_it_would_not_help() -> None:
    async with serving() as service:
        stopped, writer = await service.plug(upload("/", bytes(10_000), 20_000))
        await until(lambda: service.admission.held_bytes == 10_000)
        with service.admission.hold_bytes() as take:
            await take(35_000)
            await service.stalled()
            for lacking in (20_000, ROOM + 1):
                with pytest.raises(QueueFull), service.admission.hold_bytes() as hopeless:
                    await hopeless(lacking)
        writer.write(bytes(10_000))
        assert await status(stopped) == 200


async def test_a_steady_client_is_not_stalled() -> None:
    async with serving() as service:
        reader, writer = await service.plug(upload("/", b"", 20_000))
        for _ in range(20):
            writer.write(bytes(500))
            await asyncio.sleep(0.1)
            assert all(connection.stalled_s < STALLED_S for connection in service.connections)
        writer.write(bytes(10_000))
        assert await status(reader) == 200


async def test_a_client_is_given_up_in_the_moment_that_its_time_is_over() -> None:
    loop = asyncio.get_running_loop()
    async with serving(read_timeout_s=0.5) as service:
        begun = loop.time()
        reader, _ = await service.plug(upload("/", b"", 100))
        await until(lambda: bool(service.connections and service.connections[0].stalled_s))
        [connection] = service.connections
        ends: list[asyncio.Task[None]] = []
        # The loop sleeps past both, and so calls both in one turn: this one first.
        pace = connection._pace
        assert pace is not None
        loop.call_at(pace.until - 0.2, time.sleep, 0.3)
        loop.call_at(
            pace.until - 0.1, lambda: ends.append(asyncio.create_task(connection.give_up()))
        )
        assert await status(reader) == 408
        await ends[0]
        assert loop.time() - begun < 10


async def test_a_client_that_has_just_been_refused_keeps_its_place() -> None:
    async with serving(max_connections=1) as service:
        reader, _ = await service.plug(b"nonsense\r\n\r\n")
        await until(lambda: bool(service.connections and service.connections[0]._lingering))
        other, _ = await service.plug(GET)
        assert await status(other) == 503
        assert await status(reader) == 400
        await until(lambda: service.connections[0].may_go)
        third, _ = await service.plug(GET)
        assert await status(third) == 200


# -- one request after another


async def untaken(
    service: Service,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Connection]:
    """A client that has a large answer before it has sent its body, and does not take it yet."""
    reader, writer = await service.plug(upload("/large", b"", 10))
    await until(lambda: bool(service.connections and service.connections[0]._unsent))
    [connection] = service.connections
    return reader, writer, connection


async def send_next(writer: asyncio.StreamWriter, connection: Connection) -> None:
    """Send the body, and of the next request all but its body; it waits in the parser."""
    writer.write(bytes(10) + upload("/", b"", 5))
    await until(lambda: connection.conn.trailing_data[0].startswith(b"POST"))


async def test_a_request_waits_until_an_early_answer_is_taken() -> None:
    """Its answer then comes, though it takes longer than a connection may be idle."""
    async with serving(keep_alive_s=0.3) as service:
        reader, writer, connection = await untaken(service)
        await send_next(writer, connection)
        assert await status(reader) == 200
        await until(lambda: connection._in_work and not connection._unsent)
        assert connection.timeout_keep_alive_task is None
        writer.write(bytes(5))
        assert await status(reader) == 200
        writer.write(GET)
        assert await status(reader) == 200


async def test_a_connection_stays_open_after_the_rest_of_a_body() -> None:
    async with serving(header_timeout_s=0.3, keep_alive_s=5) as service:
        reader, writer = await service.plug(upload("/early", b"", 10))
        assert await status(reader) == 200
        [connection] = service.connections
        writer.write(bytes(4))
        await until(lambda: connection._timer is not None)
        writer.write(bytes(6))
        await until(lambda: connection.conn.their_state is h11.IDLE)
        assert connection._timer is None
        writer.write(GET)
        assert await status(reader) == 200


async def test_a_connection_is_closed_after_the_rest_of_a_body_and_its_time() -> None:
    async with serving(header_timeout_s=5, keep_alive_s=0.3) as service:
        reader, writer = await service.plug(upload("/early", b"", 10))
        assert await status(reader) == 200
        writer.write(bytes(10))
        async with asyncio.timeout(3):
            assert await reader.read() == b""


async def test_half_a_header_behind_a_request_has_to_arrive() -> None:
    async with serving(header_timeout_s=0.3, keep_alive_s=60) as service:
        reader, _ = await service.plug(GET + GET[:-5])
        assert await status(reader) == 200
        assert await status(reader) == 408


# -- the end


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients linger for longer than any test runs, and look after them often at the end."""
    monkeypatch.setattr(connections, "LINGER_S", 3600.0)
    monkeypatch.setattr(connections, "STALLED_S", OFTEN_S)


@pytest.mark.usefixtures("patient")
async def test_clients_that_linger_do_not_delay_the_end() -> None:
    """Before it, at it and after it; they neither close nor send what is missing."""
    late = 20
    async with serving(read_timeout_s=0.5, max_bytes=10**7, max_pending_bytes=10**8) as service:
        before, _ = await service.plug(upload("/early", b"", late * 10**6))  # too much to be read
        at, _ = await service.plug(upload("/early", b"", late))
        after, _ = await service.plug(upload("/", b"", late))
        assert [await status(before), await status(at)] == [200, 200]
        await until(lambda: len(service.connections) == 3 and service.connections[2]._in_work)
        assert [c._lingering for c in service.connections] == [True, False, False]
        for connection in service.connections:
            connection.shutdown()
        assert [c._lingering for c in service.connections] == [True, True, False]
        assert await status(after) == 408
        await until(lambda: all(c._raw.is_closing() for c in service.connections))


@pytest.mark.usefixtures("patient")
async def test_the_end_waits_for_answers_to_be_taken() -> None:
    async with serving(write_timeout_s=60) as service:
        reader, _, connection = await untaken(service)
        connection.shutdown()
        await asyncio.sleep(2.5 * OFTEN_S)
        assert await status(reader) == 200
        await until(connection._raw.is_closing)


@pytest.mark.usefixtures("patient")
async def test_a_request_that_waits_for_an_answer_to_be_taken_does_not_delay_the_end() -> None:
    """It has not begun, and nothing can be written any more."""
    async with serving(write_timeout_s=60) as service:
        reader, writer, connection = await untaken(service)
        await send_next(writer, connection)
        connection.shutdown()
        assert await status(reader) == 200
        await until(connection._raw.is_closing)


# -- what is counted and logged


async def rejections(service: Service, code: str) -> float:
    document, _ = service.metrics.expose("text/plain")
    return Scrape(document.decode()).value("breedcam_rejections_total", reason=code)


async def test_faults_are_logged_with_their_client(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(max_connections=1) as service:
        with caplog.at_level("INFO", "app.connections"):
            reader, _ = await service.plug(b"nonsense\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            refused, _ = await service.plug(GET)
            assert await status(refused) == 503
        records = [record for record in caplog.records if record.name == "app.connections"]
        lines = [record.getMessage() for record in records]
        fields = [record.fields for record in records]  # type: ignore[attr-defined]
    request_id = head.partition("x-request-id: ")[2].partition("\r")[0]
    assert fields[0] == {
        "status": 400,
        "client": "127.0.0.1",
        "request_id": request_id,
        "error": "malformed-request",
    }
    assert lines[0].startswith("refused: 400 This is not a request of HTTP/1.1: ")
    assert lines[0].endswith(f" {request_id} client=127.0.0.1 error=malformed-request")
    assert (fields[1]["status"], fields[1]["client"]) == (503, "127.0.0.1")


async def test_faults_count_where_they_are_answered() -> None:
    chunked = b"POST /endless HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving() as service:
        reader, _ = await service.plug(b"nonsense\r\n\r\n")
        assert await status(reader) == 400
        assert await rejections(service, "malformed-request") == 1
        reader, writer = await service.plug(chunked)
        await reader.readuntil(b"begun")
        writer.write(b"no chunk\r\n")
        await until(lambda: service.connections[1]._lingering)
        assert await rejections(service, "malformed-request") == 1
