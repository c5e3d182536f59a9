import asyncio
import logging
import re
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.main import create_app
from app.telemetry import REQUEST_ID_HEADER, RequestLog, request_id

pytestmark = pytest.mark.anyio

Headers = list[tuple[bytes, bytes]]


async def call(
    app: ASGIApp, *, offered: bytes | None = None, path: str = "/x"
) -> tuple[int, Headers]:
    """One GET, in a context of its own as under a server: status and headers."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if offered is None else [(REQUEST_ID_HEADER.lower().encode(), offered)]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    await asyncio.gather(app(scope, receive, send))
    return sent[0]["status"], sent[0]["headers"]


def ids(headers: Headers) -> list[str]:
    name = REQUEST_ID_HEADER.lower().encode()
    return [value.decode() for key, value in headers if key.lower() == name]


class Inner:
    """Answers 204 and remembers the id it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(request_id())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def test_each_request_has_an_id_of_its_own() -> None:
    inner = Inner()
    app = RequestLog(inner)
    answers = [await call(app) for _ in range(3)]
    returned = [ids(headers) for _, headers in answers]
    assert returned == [[seen] for seen in inner.seen]
    assert len(set(inner.seen)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", seen) for seen in inner.seen)


@pytest.mark.parametrize("offered", [b"a", b"7f3e-41:b.c_D", b"x" * 64])
async def test_a_sane_id_is_kept(offered: bytes) -> None:
    inner = Inner()
    status, headers = await call(RequestLog(inner), offered=offered)
    assert status == 204
    assert ids(headers) == inner.seen == [offered.decode()]


@pytest.mark.parametrize(
    "offered",
    [b"", b"x" * 65, b"a b", b"a\n", b"a\r\nSet-Cookie: b", b"<script>", "é".encode("latin-1")],
)
async def test_any_other_is_replaced(offered: bytes) -> None:
    inner = Inner()
    _, headers = await call(RequestLog(inner), offered=offered)
    assert ids(headers) == inner.seen
    assert re.fullmatch(r"[0-9a-f]{32}", inner.seen[0])


async def test_requests_at_the_same_time_keep_their_ids() -> None:
    met = asyncio.Event()
    seen: dict[str, str] = {}

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/first":
            await met.wait()
        else:
            met.set()
        seen[scope["path"]] = request_id()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app = RequestLog(inner)
    answers = await asyncio.gather(
        call(app, offered=b"one", path="/first"), call(app, offered=b"two", path="/second")
    )
    assert seen == {"/first": "one", "/second": "two"}
    assert [ids(headers) for _, headers in answers] == [["one"], ["two"]]


async def test_outside_of_a_request_there_is_no_id() -> None:
    await call(RequestLog(Inner()))
    assert request_id() == ""


async def test_an_id_that_the_application_set_is_not_doubled() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-request-id", b"another"), (b"x-other", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    _, headers = await call(RequestLog(inner), offered=b"mine")
    assert ids(headers) == ["mine"]
    assert (b"x-other", b"1") in headers


async def test_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="app.access"):
        await call(RequestLog(Inner()), offered=b"mine", path="/dog")
    [line] = caplog.messages
    assert re.fullmatch(r"GET /dog 204 \d+\.\d ms mine client= bytes_in=0 bytes_out=0", line)


async def test_an_exception_passes_and_is_logged_as_500(caplog: pytest.LogCaptureFixture) -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("passes")

    with (
        caplog.at_level(logging.INFO, logger="app.access"),
        pytest.raises(RuntimeError, match="passes"),
    ):
        await call(RequestLog(inner))
    assert caplog.messages[0].startswith("GET /x 500 ")


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_no_http_request_passes_untouched(kind: str) -> None:
    seen: list[tuple[Any, ...]] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send, request_id()))

    async def receive() -> Message:
        return {"type": "nothing"}

    async def send(message: Message) -> None:
        """Nothing is sent."""

    scope = {"type": kind}
    await RequestLog(inner)(scope, receive, send)
    assert seen == [(scope, receive, send, "")]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The application, not started, with one route that fails as nobody foresaw."""
    app = create_app()

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as session:
        yield session


@pytest.mark.parametrize(
    ("path", "status"), [("/boom", 500), ("/nowhere", 404), ("/readyz", 503), ("/predict", 405)]
)
async def test_every_problem_tells_the_id(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    answer = await client.get(path, headers={REQUEST_ID_HEADER: "mine"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get_list(REQUEST_ID_HEADER) == ["mine"]
    problem = answer.json()
    assert (problem["status"], problem["request_id"]) == (status, "mine")
    assert "secret" not in answer.text


async def test_a_path_writes_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="app.access"):
        await call(RequestLog(Inner()), path="/x\n2099-01-01 INFO forged" + "a" * 1000)
    assert [line.count("\n") for line in caplog.messages] == [0]
    assert caplog.messages[0].startswith("GET /x%0A2099-01-01%20INFO%20forgedaaa")
    assert len(caplog.messages[0]) < 400
