"""The signals of a process that serves. Its start is tested in `test_process`."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvicorn

from app import server
from tests.app.conftest import JPEG
from tests.app.services import ENDLESS, LONG, environment, serving
from tests.app.test_process import refuses, wait_for

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # as good as not installed
from app.main import run
run()
"""


def test_the_service_does_without_tensorflow_and_the_second_signal_ends_it(tmp_path: Path) -> None:
    """The first waits for the upload in work; a hang-up of the terminal ends nothing.

    `test_process` has the end after the first alone.
    """
    options = ENDLESS | {"engine": "auto"}
    with serving(tmp_path, "-c", WITHOUT_TENSORFLOW, **options) as service:
        answer = httpx.post(
            f"{service.url}/gradcam?layers=last6&overlay=false",
            content=JPEG,
            headers={"Content-Type": "image/jpeg"},
            timeout=LONG,
        )
        assert answer.status_code == 200
        assert answer.json()["explanation"]["status"] == "ok"
        assert "with openvino" in service.log.read_text()
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "no newer version" in service.log.read_text())
        assert httpx.get(f"{service.url}/readyz", timeout=LONG).status_code == 200
        with socket.create_connection(("127.0.0.1", service.port), timeout=LONG) as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
                b"Content-Length: 999999\r\n\r\n" + JPEG
            )
            wait_for(lambda: httpx.get(f"{service.url}/livez", timeout=LONG).status_code == 200)
            service.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(service.port))
            assert service.process.poll() is None
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(LONG) == -signal.SIGINT


def test_the_time_to_stop_runs_from_the_first_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(server, "_end_at_signals", lambda: calls.append("the next one ends"))
    stopping = server._Server(
        uvicorn.Config("app.main:create_app"), lambda: None, lambda: calls.append("begin")
    )
    stopping.handle_exit(signal.SIGTERM, None)
    assert stopping.should_exit
    assert calls == ["begin", "the next one ends"]


UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def test_signals_end_the_first_process_of_a_container(tmp_path: Path) -> None:
    """It has no default effect of signals: neither while it loads, nor as it stops."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a process with the number 1")
    code = """
import os, signal, sys
from app import server
server._end_at_signals()
os.kill(os.getpid(), int(sys.argv[1]))
signal.pause()
"""
    for sent in (signal.SIGTERM, signal.SIGINT):
        done = subprocess.run(
            [*UNSHARE, sys.executable, "-c", code, str(int(sent))],
            env=environment(),
            cwd=tmp_path,
            timeout=LONG,
        )
        assert done.returncode == 128 + sent
