import asyncio
import logging
import re
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.bundle import BundleError
from app.errors import BreedCAMError, EngineUnavailable
from app.main import create_app
from app.service import Service
from app.settings import PROJECT, Settings
from tests.app.conftest import JPEG, Borrowed, Held, Serve, post, problem

pytestmark = pytest.mark.anyio


def inference_threads() -> int:
    return sum(thread.name == "inference" for thread in threading.enumerate())


async def test_the_lifespan_opens_and_closes_the_model(
    settings: Settings, engine: Borrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the engine is opened anew; `test_process` starts services with their own."""
    monkeypatch.setattr("app.engines.create", lambda *_, **__: engine)
    before = inference_threads()
    app = create_app(
        settings.model_copy(
            update={"max_batch": 1, "model": Settings.model_fields["model"].default}
        )
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        problem(await client.get("/readyz"), 503, "not-ready")
        async with app.router.lifespan_context(app):
            assert inference_threads() == before + 1
            assert (await client.get("/readyz")).status_code == 200
            answer = await post(client, "/gradcam")
            assert answer.status_code == 200
            assert answer.json()["explanation"]["status"] == "ok"
        assert inference_threads() == before
        assert engine.closed
        problem(await client.get("/readyz"), 503, "not-ready")
        problem(await post(client, "/predict"), 503, "not-ready")


async def test_a_server_that_knows_no_state_of_the_lifespan_will_do(
    make_service: Callable[..., Service],
) -> None:
    """It is optional in ASGI."""
    service = make_service()
    app = create_app(service.settings, service)
    sent: list[str] = []
    over = asyncio.Event()

    async def receive() -> dict[str, str]:
        if not sent:
            return {"type": "lifespan.startup"}
        await over.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])
        if len(sent) == 1:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                assert (await post(client, "/predict")).status_code == 200
            over.set()

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_model_is_closed_when_the_service_is_cut_off(
    make_service: Callable[..., Service], engine: Borrowed
) -> None:
    service = make_service(engine=engine)
    app = create_app(service.settings, service)

    async def serve_until_cut_off() -> None:
        async with app.router.lifespan_context(app):
            assert service.model.ready
            assert not engine.closed
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await serve_until_cut_off()
    assert not service.model.ready
    assert engine.closed


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": Path("models/none")}, BundleError, r"no model at .*models/none"),
        ({"model": Path("app")}, BundleError, r"app holds no model version"),
        ({"engine": "tensorflow"}, EngineUnavailable, "TensorFlow is not installed"),
    ],
)
async def test_a_model_that_cannot_be_served_stops_the_start(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    error: type[BreedCAMError],
    message: str,
) -> None:
    app = create_app(settings.model_copy(update=change))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(error, match=message):
        async with app.router.lifespan_context(app):
            pytest.fail("started")


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, ZeroDivisionError, OSError])
async def test_what_nobody_foresaw_is_logged_and_does_not_leak(
    serve: Serve,
    make_service: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    service = make_service(max_pending=1)

    def fail(*_: object) -> None:
        raise kind(f"secret of {PROJECT}")

    async with serve(service) as client:
        with monkeypatch.context() as patch:
            patch.setattr(service.explainer, "_decode", fail)
            with caplog.at_level(logging.INFO, "app.access"):
                response = await post(client, "/cam", headers={"X-Request-ID": "mine"})
        detail = problem(response, 500, "internal-error")
        assert "secret" not in response.text
        assert kind.__name__ not in response.text
        assert detail == "An unexpected error occurred in the service."
        assert response.headers.get_list("X-Request-ID") == ["mine"]
        assert re.search(r"POST /cam 500 .* mine", caplog.text)
        # Its place is free again.
        assert (await post(client, "/cam")).status_code == 200


async def test_an_unforeseen_error_reaches_the_server_that_logs_it(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    monkeypatch.setattr(service.explainer, "_decode", lambda *_: 1 / 0)
    app = create_app(service.settings, service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        with pytest.raises(ZeroDivisionError):
            await post(client, "/predict")


@pytest.mark.parametrize("after_body", [False, True], ids=["in the body", "after the body"])
async def test_a_client_that_hangs_up_is_no_failure_and_costs_no_more(
    make_service: Callable[..., Service], engine: Borrowed, after_body: bool
) -> None:
    held = Held(engine)
    service = make_service(engine=held, max_pending=1)
    app = create_app(service.settings, service)
    sent: list[int] = []
    chunk = JPEG if after_body else JPEG[:100]
    messages: list[dict[str, object]] = [
        {"type": "http.request", "body": chunk, "more_body": not after_body},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, object]:
        if after_body and len(messages) == 1:  # at the latest moment, when the model runs
            await asyncio.to_thread(held.busy.wait, 20)
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            sent.append(int(str(message["status"])))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/cam",
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg")],
    }
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)  # type: ignore[arg-type]
        assert sent == [499]
        assert held.busy.is_set() == after_body
        with service.admission.admit():  # the one place, while the model is still at it
            held.go.set()
