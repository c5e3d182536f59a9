"""OpenTelemetry traces of requests, where the usual `OTEL_*` variables say where they go.

Only then is OpenTelemetry's SDK imported (extra `otel`). A request is one span, made by the ASGI
instrumentation, which follows the client's `traceparent`; under it lies a span for each part of a
photo's way, see `app.clock`.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from starlette.types import ASGIApp, Receive, Scope, Send

from app.clock import Clock

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span

__all__ = ["Tracing"]

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

PATIENCE_S = 3.0
"""How long a service that stops waits for the collector."""

_UNTRACED = frozenset({"livez", "readyz", "metrics"})
"""Last parts of paths that are requested every few seconds."""

_SHORTEST_WAIT_S = 1e-5
"""Waiting between two stages that is shorter is not worth a span."""


class Tracing:
    """Makes the spans of one application."""

    def __init__(self, provider: "TracerProvider") -> None:
        """Make spans by a provider."""
        self._provider = provider
        self.tracer = provider.get_tracer("breedcam")

    @classmethod
    def from_environment(cls) -> Self | None:
        """Traces as the `OTEL_*` variables want them; None where they want none.

        A warning says so where they want some that cannot be had.
        """
        exporter = _exporter(os.environ)
        if exporter is None:
            return None
        try:
            return cls(_provider(exporter))
        except ModuleNotFoundError as error:
            log.warning(
                "no traces: OTEL_ variables want them, but %s is not installed; install "
                "requirements/otel.txt (`make .venv/.otel`)",
                error.name,
            )
        except ValueError as error:  # a variable's value, of the SDK's many
            log.warning("no traces: %s", error)
        return None

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """ASGI middleware: a span around each request but those of probes.

        The span sees neither the query nor headers that are not ASCII, which the instrumentation
        does not survive.
        """
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        async def restored(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope["breedcam.scope"], receive, send)

        traced = OpenTelemetryMiddleware(
            restored, tracer_provider=self._provider, exclude_spans=["receive", "send"]
        )

        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"].rpartition("/")[2] in _UNTRACED:
                await app(scope, receive, send)
                return
            headers = [
                (name, value)
                for name, value in scope["headers"]
                if name.isascii() and value.isascii()
            ]
            seen = {**scope, "query_string": b"", "headers": headers, "breedcam.scope": scope}
            await traced(seen, receive, send)

        return middleware

    def trace_id(self) -> str:
        """The current trace's id, 32 hexadecimal digits; empty where none is recorded."""
        from opentelemetry import trace

        span = trace.get_current_span()
        return format(span.get_span_context().trace_id, "032x") if span.is_recording() else ""

    def answered(self, method: str, route: str, request_id: str, reason: str) -> None:
        """Name the current request's span by its route; before the last byte is sent.

        Args:
            method: of the request.
            route: the template that its path matched.
            request_id: as the log has it.
            reason: the code of the problem that it is answered with; empty without.
        """
        span = _recording()
        if span is None:
            return
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("breedcam.request_id", request_id)
        if reason:
            span.set_attribute("error.type", reason)

    def stages(self, clock: Clock) -> None:
        """Add a photo's stages to the current request's span."""
        if _recording() is None:
            return
        epoch_ns = time.time_ns() - time.monotonic_ns()
        for lap in clock.laps:
            if lap.name != "queue" or lap.seconds >= _SHORTEST_WAIT_S:
                span = self.tracer.start_span(lap.name, start_time=epoch_ns + _ns(lap.begun))
                span.end(epoch_ns + _ns(lap.ended))

    def close(self) -> None:
        """Send what is left; blocks, but not for a collector that does not answer."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(PATIENCE_S)


def _exporter(environment: Mapping[str, str]) -> str | None:
    """`otlp` or `console`, as the variables want it; None for no traces."""
    names = sorted(name for name in environment if name.startswith("OTEL_"))
    if not names or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    default = "otlp" if any(environment.get(name) for name in _ENDPOINTS) else ""
    exporter = environment.get(_EXPORTER, "").strip().lower() or default
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), "http/protobuf")
    if not exporter:
        wanted = " nor ".join((*_ENDPOINTS, _EXPORTER))
        log.warning("no traces: %s set, but neither %s", ", ".join(names), wanted)
    elif exporter not in ("otlp", "console", "none"):
        log.warning("no traces: %s can be otlp, console or none", _EXPORTER)
    elif exporter == "otlp" and protocol != "http/protobuf":
        log.warning("no traces: %s can be http/protobuf only", _PROTOCOLS[1])
    elif exporter != "none":
        return exporter
    return None


def _provider(exporter: str) -> "TracerProvider":
    """The SDK's, which reads the other variables itself."""
    # For `middleware`, whose import must not be what fails later.
    import opentelemetry.instrumentation.asgi  # noqa: F401
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    named = SERVICE_NAME in OTELResourceDetector().detect().attributes
    attributes: dict[str, Any] = {} if named else {SERVICE_NAME: "breedcam"}
    processor: SpanProcessor
    if exporter == "console":
        processor = SimpleSpanProcessor(ConsoleSpanExporter())
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        processor = BatchSpanProcessor(OTLPSpanExporter())
    # Not shut down on exit: that may wait for long, see `Tracing.close`.
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def _recording() -> "Span | None":
    """The current span, if it is recorded."""
    from opentelemetry import trace

    span = trace.get_current_span()
    return span if span.is_recording() else None


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
