"""A service whose logs are JSON and whose traces go to a collector: what it wrote and sent."""

import gzip
import json
import signal
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.app.conftest import JPEG
from tests.app.services import LONG, serving

__all__ = ["MARKER", "PARENT_ID", "PHOTO", "TRACE_ID", "Observed", "observe"]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"

MARKER = b"cafe-babe-of-a-photo"
PHOTO = JPEG[:2] + b"\xff\xfe" + (len(MARKER) + 2).to_bytes(2, "big") + MARKER + JPEG[2:]
"""A JPEG with a comment."""

_WITH_FAILURE = """
import runpy
from app.routes import router

async def boom():
    raise RuntimeError("first line\\n{\\"level\\": \\"forged\\"}")

router.add_api_route("/boom", boom)
runpy.run_module("app.main", run_name="__main__")
"""


class _Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; keeps the spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []


class _Receiver(BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = resource.resource.attributes
            self.server.resources.append({a.key: a.value.string_value for a in attributes})
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Observed:
    """What a service answered, logged and sent.

    Attributes:
        good: the answer to `PHOTO`, sent raw within a trace, with the id `good`.
        bad: to `PHOTO` in a form, with an unknown target, and the id `bad`.
        failed: to a request with the id `boom`, which raises an exception.
        openmetrics: the metrics after these.
        log: all of the process's, from its start to its end.
        spans: of all requests.
        resources: attributes of what sent the spans.
    """

    good: httpx.Response
    bad: httpx.Response
    failed: httpx.Response
    openmetrics: str
    log: str
    spans: list[Span]
    resources: list[dict[str, str]]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]


def observe(directory: Path) -> Observed:
    """Run the service and stop it."""
    with _Collector() as collector, pytest.MonkeyPatch.context() as patch:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        patch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        settings = {"log_format": "json", "unheard_of": 1}
        with serving(directory, "-c", _WITH_FAILURE, **settings) as service:
            with httpx.Client(base_url=service.url, timeout=LONG) as client:
                good = client.post(
                    "/gradcam?top_k=1&target=0&overlay=false",
                    content=PHOTO,
                    headers={
                        "Content-Type": "image/jpeg",
                        "X-Request-ID": "good",
                        "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01",
                    },
                )
                bad = client.post(
                    "/cam?target=secret-breed",
                    files={"file": ("secret-name.jpg", PHOTO, "image/jpeg")},
                    headers={"X-Request-ID": "bad", "Authorization": "Bearer secret-key"},
                )
                path = "/a b%0A2099-01-01 INFO forged%1b[31m"
                client.get(path, headers={"X-Request-ID": "forged"})
                with socket.create_connection(("127.0.0.1", service.port), LONG) as plug:
                    plug.sendall(b"nonsense\r\n\r\n")
                    assert b" 400 " in plug.recv(9999)
                accept = {"Accept": "application/openmetrics-text"}
                openmetrics = client.get("/metrics", headers=accept).text
                failed = client.get("/boom?token=secret-token", headers={"X-Request-ID": "boom"})
            assert service.stop(signal.SIGTERM) == 0  # which sends what spans are left
            log = service.log.read_text()
        collector.shutdown()
        thread.join()
    return Observed(good, bad, failed, openmetrics, log, collector.spans, collector.resources)
