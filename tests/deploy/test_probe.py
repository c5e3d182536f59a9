"""The image's health check, against a server that is ready, is not, or is not there."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.settings import PROJECT
from benchmarks.services import free_port


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers so on /readyz, and 404 elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def probe(port: int) -> int:
    return subprocess.run(
        [sys.executable, str(PROJECT / "deploy" / "probe.py")],
        env=os.environ | {"BREEDCAM_PORT": str(port)},
    ).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_only_a_ready_service_is_healthy(status: int, code: int) -> None:
    with answering(status) as port:
        assert probe(port) == code


def test_a_service_that_is_not_there_is_unhealthy() -> None:
    assert probe(free_port()) == 1
