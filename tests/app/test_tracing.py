"""Spans, in memory and as a collector gets them from a real process."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from app.main import create_app
from app.service import Service
from app.tracing import Tracing
from tests.app.conftest import JPEG, encode, picture, problem
from tests.app.observed import PARENT_ID, TRACE_ID, Observed
from tests.app.services import LONG


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


# -- from a process to a collector


def test_a_request_is_a_trace_of_its_stages(observed: Observed) -> None:
    trace = [span for span in observed.spans if span.trace_id.hex() == TRACE_ID]
    spans = {span.name: span for span in trace if span.name != "queue"}
    assert set(spans) == {"POST /gradcam", "decode", "inference", "render"}
    request = spans["POST /gradcam"]
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.parent_span_id.hex() == PARENT_ID
    attributes = {a.key: a.value for a in request.attributes}
    assert attributes["http.route"].string_value == "/gradcam"
    assert attributes["http.status_code"].int_value == 200
    assert attributes["breedcam.request_id"].string_value == "good"
    parts = [span for span in trace if span is not request]
    for span in parts:
        assert span.parent_span_id == request.span_id
        # Two clocks, that of the parts is the monotonic one; a busy machine reads them apart.
        assert span.start_time_unix_nano > request.start_time_unix_nano - LONG * 1e9
        assert span.end_time_unix_nano < request.end_time_unix_nano + LONG * 1e9
    parts.sort(key=lambda span: span.start_time_unix_nano)
    stages = [span.name for span in parts if span.name != "queue"]
    assert stages == ["decode", "inference", "render"]
    for stage, milliseconds in observed.good.json()["timings_ms"].items():
        lasted = sum(
            span.end_time_unix_nano - span.start_time_unix_nano
            for span in parts
            if span.name == stage
        )
        # Waiting under 10 us has no span.
        assert lasted / 1e6 == pytest.approx(milliseconds, abs=0.05 if stage == "queue" else 0.002)


def test_all_requests_but_probes_are_traced(observed: Observed) -> None:
    names = [span.name for span in observed.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert sorted(names) == ["GET /boom", "GET unmatched", "POST /cam", "POST /gradcam"]
    assert "secret" not in str(observed.spans)
    assert observed.resources[0]["service.name"] == "breedcam"


def test_a_duration_points_to_its_trace(observed: Observed) -> None:
    [exemplar] = [line for line in observed.openmetrics.splitlines() if TRACE_ID in line]
    assert exemplar.startswith("breedcam_request_duration_seconds_bucket{")
    assert 'route="/gradcam"' in exemplar


def test_a_collector_that_does_not_answer_holds_no_stop_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(LONG))
        monkeypatch.setattr("app.tracing.PATIENCE_S", 0.2)
        tracing = Tracing.from_environment()
        assert tracing is not None
        tracing.tracer.start_span("lost").end()
        begun = time.monotonic()
        tracing.close()
        assert time.monotonic() - begun < LONG / 2
        client, _ = silent.accept()
        with client:
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            [closing] = [thread for thread in threading.enumerate() if thread.name == "traces"]
            closing.join(LONG)
        assert not closing.is_alive()


# -- in memory


class Context:
    """An application whose spans are kept."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        with monkeypatch.context() as patch:
            patch.setattr(Tracing, "from_environment", lambda: Tracing(provider))
            self.app = create_app(service.settings, service)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def traced(make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Context:
    return Context(make_service(), monkeypatch)


@pytest.mark.anyio
async def test_a_problem_names_its_code(traced: Context) -> None:
    async with traced.app.router.lifespan_context(traced.app), traced.client() as client:
        headers = {"Content-Type": "image/jpeg"}
        cut = encode(picture(), "PNG")[:20_000]  # its header is whole
        response = await client.post("/predict", content=cut, headers=headers)
        problem(response, 422, "undecodable-image")
        await client.get("/x/y?secret=1")
    names = [span.name for span in traced.spans if span.name != "queue"]
    assert names == ["decode", "POST /predict", "GET unmatched"]
    request, unmatched = (span for span in traced.spans if " " in span.name)
    assert request.attributes is not None
    assert request.attributes["error.type"] == "undecodable-image"
    assert unmatched.attributes is not None
    assert "secret" not in str(dict(unmatched.attributes))


@pytest.mark.anyio
async def test_an_unforeseen_error_is_on_its_span(
    traced: Context, make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    monkeypatch.setattr(service.explainer, "_decode", lambda *_: 1 / 0)
    traced = Context(service, monkeypatch)
    async with traced.app.router.lifespan_context(traced.app), traced.client() as client:
        headers = {"Content-Type": "image/jpeg"}
        response = await client.post("/predict", content=JPEG, headers=headers)
        problem(response, 500, "internal-error")
    [request] = [span for span in traced.spans if span.name != "queue"]
    assert request.name == "POST /predict"
    assert request.attributes is not None
    assert request.attributes["error.type"] == "internal-error"
    assert request.status.status_code is StatusCode.ERROR


@pytest.mark.anyio
async def test_probes_and_unsampled_requests_leave_no_span(traced: Context) -> None:
    async with traced.app.router.lifespan_context(traced.app), traced.client() as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00", "Content-Type": "image/jpeg"}
        assert (await client.post("/cam", content=JPEG, headers=headers)).status_code == 200
    assert traced.spans == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"user-agent", b"\xff\\x"),
        (b"host", b"\xff\\u1"),
        (b"traceparent", b"\xff\\N"),
        (b"traceparent", b"00-" + b"0" * 3000),
        (b"\xff\\x", b"1"),
    ],
)
async def test_headers_that_are_no_text_do_no_harm(
    traced: Context, name: bytes, value: bytes
) -> None:
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(int(str(message["status"])))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/model",
        "query_string": b"\xff",
        "headers": [(name, value)],
    }
    async with traced.app.router.lifespan_context(traced.app):
        await traced.app(scope, receive, send)  # type: ignore[arg-type]
    assert statuses == [200]
    [span] = traced.spans
    assert span.name == "GET /model"


# -- the variables


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_no_traces_are_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Tracing.from_environment() is None
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_SERVICE_NAME": "dogs"}, ["OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT"]),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ["OTEL_TRACES_EXPORTER", "otlp, console or none"]),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ["OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"],
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"},
            ["positive"],
        ),
    ],
)
def test_traces_that_cannot_be_had_are_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    words: list[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        assert Tracing.from_environment() is None
    [message] = caplog.messages
    assert message.startswith("no traces: ")
    for word in words:
        assert word in message


def test_without_the_extra_a_warning_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    # As good as not installed.
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.asgi", None)
    with caplog.at_level(logging.WARNING):
        create_app()
    [message] = caplog.messages
    assert message.startswith("no traces: ")
    assert "opentelemetry.instrumentation.asgi is not installed" in message
    assert "make .venv/.otel" in message


def test_the_console_needs_no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    tracing = Tracing.from_environment()
    assert tracing is not None
    tracing.close()
