"""What stands before Ray's own application, around one that fails as Ray's does."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from app import ray_proxy
from app.connections import Connection
from app.errors import QueueFull
from app.problems import answer
from tests.app.conftest import problem

Replica = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`variables(deadline_s=...)` sets them; uvicorn's protocols are put back afterwards."""
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "")
    monkeypatch.setattr("app.logs.configure", lambda *_: None)  # pytest's own stay

    def set_variables(**settings: object) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"BREEDCAM_{name.upper()}", str(value))

    return set_variables


class Replicas:
    """Ray's application: gives each request to the next of these, and remembers it."""

    def __init__(self, *replicas: ASGIApp) -> None:
        self.replicas = list(replicas)
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await self.replicas[len(self.scopes) - 1](scope, receive, send)


async def dead(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends before it answers: Ray's application returns."""


async def dying(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends amid its answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answers, and swallows that it is cancelled, as Ray's generators do."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a fault of Ray's")


def chunked() -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"wh"
        yield b"ole"

    return StreamingResponse(chunks())


@asynccontextmanager
async def proxy(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of what Ray serves: `app` with the middleware around it."""
    for middleware in ray_proxy.middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


pytestmark = pytest.mark.anyio


async def test_a_request_gets_through_whole_with_its_id_and_without_hints(
    variables: Callable[..., None],
) -> None:
    variables()
    ray = Replicas(chunked())
    async with proxy(ray) as client:
        chunks: Any = _chunks(b"ab", b"", b"cd")
        headers = {"X-Request-Timeout-Seconds": "0", "X-Session-ID": "1", "X-Other": "2"}
        response = await client.post("/predict?a=b", content=chunks, headers=headers)
    assert (response.status_code, response.content) == (200, b"whole")
    assert ray.bodies == [b"abcd"]
    [scope] = ray.scopes
    sent = dict(scope["headers"])
    assert sent[b"x-request-id"].decode() == response.headers["X-Request-ID"]
    assert sent[b"x-other"] == b"2"
    assert not {b"x-request-timeout-seconds", b"x-session-id"} & sent.keys()
    assert scope["query_string"] == b"a=b"


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("first", [dead, dying, failing])
async def test_another_replica_gets_the_request_of_one_that_ends(
    variables: Callable[..., None], first: ASGIApp
) -> None:
    variables()
    ray = Replicas(first, PlainTextResponse("done"))
    async with proxy(ray) as client:
        response = await client.post("/predict", content=b"photo")
    assert (response.status_code, response.text) == (200, "done")
    assert ray.bodies == [b"photo", b"photo"]


async def test_a_request_ends_two_replicas_at_most(variables: Callable[..., None]) -> None:
    variables()
    ray = Replicas(dead, dying, PlainTextResponse("done"))
    async with proxy(ray) as client:
        response = await client.post("/predict", content=b"photo")
    problem(response, 503, "engine-down")
    assert response.headers["Retry-After"] == "5"
    assert len(ray.bodies) == 2


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (404, 503, "not-ready"),
        (408, 504, "deadline-exceeded"),
        (429, 429, "queue-full"),
        (500, 500, "internal-error"),
        (503, 503, "not-ready"),
    ],
)
async def test_what_ray_refuses_is_a_problem(
    variables: Callable[..., None], status: int, expected: int, code: str
) -> None:
    variables()
    ray = Replicas(PlainTextResponse("in Ray's words", status, {"X-Request-ID": "Ray's"}))
    async with proxy(ray) as client:
        response = await client.post("/predict", content=b"photo")
    assert "Ray" not in problem(response, expected, code)
    assert ("Retry-After" in response.headers) == (expected in (429, 503))


async def test_what_ray_refuses_is_held_by_nothing(variables: Callable[..., None]) -> None:
    variables()
    refusal, photo = PlainTextResponse("in Ray's words", 429), bytes(1_000_000)
    async with proxy(refusal) as client:
        await client.post("/predict", content=photo)
        tracemalloc.start()
        try:
            for _ in range(20):
                assert (await client.post("/predict", content=photo)).status_code == 429
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held < 5 * len(photo)


async def test_what_a_replica_refuses_is_left_as_it_is(variables: Callable[..., None]) -> None:
    variables()
    async with proxy(Replicas(answer(QueueFull("The replica's words.")))) as client:
        response = await client.post("/predict", content=b"photo")
    assert response.status_code == 429
    assert response.json()["detail"].startswith("The replica's words.")


async def test_the_deadline_ends_the_work(variables: Callable[..., None]) -> None:
    variables(deadline_s=0.1)
    ray = Replicas(endless)
    async with proxy(ray) as client:
        problem(await client.post("/predict", content=b"photo"), 504, "deadline-exceeded")
    assert len(ray.scopes) == 1


async def test_a_body_that_does_not_end_is_the_clients_fault(
    variables: Callable[..., None],
) -> None:
    variables(deadline_s=0.1)

    async def slow() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    ray = Replicas()
    async with proxy(ray) as client:
        problem(await client.post("/predict", content=slow()), 408, "request-timeout")
    assert not ray.scopes


async def test_a_client_that_hangs_up_ends_its_request(variables: Callable[..., None]) -> None:
    """Without another try."""
    variables()
    calls = 0

    async def until_gone(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        assert (await receive())["body"] == b"photo"
        assert (await receive())["type"] == "http.disconnect"

    messages: list[Message] = [
        {"type": "http.request", "body": b"photo"},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    app: ASGIApp = until_gone
    for middleware in ray_proxy.middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    scope = {"type": "http", "method": "POST", "path": "/cam", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    assert calls == 1
    assert sent[0]["status"] == 499


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_reaches_no_replica(
    variables: Callable[..., None], announced: bool
) -> None:
    variables(max_bytes=2000)
    ray = Replicas()
    content: Any = bytes(2001) if announced else _chunks(bytes(1500), bytes(501))
    async with proxy(ray) as client:
        problem(await client.post("/predict", content=content), 413, "too-many-bytes")
    assert not ray.scopes


async def test_bodies_and_answers_share_the_memory(variables: Callable[..., None]) -> None:
    variables(max_bytes=2000, max_pending_bytes=3000)
    ray = Replicas(PlainTextResponse("x" * 1000), PlainTextResponse("x" * 1001))
    async with proxy(ray) as client:
        assert (await client.post("/predict", content=bytes(2000))).status_code == 200
        problem(await client.post("/predict", content=bytes(2000)), 429, "queue-full")
    slow, ray = asyncio.Event(), Replicas(PlainTextResponse("y"), PlainTextResponse("z"))

    async def halting() -> AsyncIterator[bytes]:
        yield bytes(1900)
        await slow.wait()

    async with proxy(ray) as client:
        first = asyncio.create_task(client.post("/predict", content=halting()))
        await asyncio.sleep(0.05)
        problem(await client.post("/predict", content=bytes(1500)), 429, "queue-full")
        slow.set()
        assert (await first).status_code == 200
        assert (await client.post("/predict", content=bytes(2000))).status_code == 200


async def test_keys_and_hosts_are_checked_before_a_body_is_read(
    variables: Callable[..., None],
) -> None:
    variables(api_keys="correct-horse-battery-staple", trusted_hosts="test", root_path="/pets")
    ray = Replicas(PlainTextResponse("done"))
    read = False

    async def watched() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"photo"

    key = {"Authorization": "Bearer correct-horse-battery-staple"}
    async with proxy(ray) as client:
        problem(await client.post("/predict", content=watched()), 401, "unauthorized")
        elsewhere = key | {"Host": "elsewhere"}
        response = await client.post("/predict", content=watched(), headers=elsewhere)
        problem(response, 421, "unknown-host")
        assert response.headers["Cache-Control"] == "no-store"
        assert not read
        assert (await client.post("/predict", content=b"photo", headers=key)).text == "done"
    assert (ray.scopes[0]["root_path"], ray.scopes[0]["path"]) == ("/pets", "/pets/predict")


async def test_rays_own_pages_are_rays(variables: Callable[..., None]) -> None:
    variables()
    async with proxy(PlainTextResponse("draining", 503)) as client:
        response = await client.get("/-/healthz")
    assert (response.status_code, response.text) == (503, "draining")


async def test_uvicorn_serves_connections_with_our_limits(variables: Callable[..., None]) -> None:
    from uvicorn import Config

    variables(trusted_proxies="192.0.2.1,192.0.2.2")
    ray_proxy.middlewares()
    config = Config("app.main:create_app")  # as Ray makes it: `http` is left at "auto"
    config.load()
    assert getattr(config.http_protocol_class, "func", None) is Connection
    assert config.forwarded_allow_ips == "192.0.2.1,192.0.2.2"
