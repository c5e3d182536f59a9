"""Service processes to send requests to."""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib import request
from urllib.error import URLError

from benchmarks.protocol import PROJECT, WorkerFailed

__all__ = ["Service", "free_port", "ours", "plain"]

PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is ready.

    Attributes:
        port: on 127.0.0.1.
        process_id: of the service.
        started_s: seconds from the start of the process to the first 200 of `/readyz`.
    """

    port: int
    process_id: int
    started_s: float

    @property
    def resident_mb(self) -> float:
        """Resident memory of the process and its children in megabytes (10^6 bytes).

        Pages that several of them share count once for each.
        """
        kilobytes = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                lines = (process / "status").read_text(encoding="utf-8").splitlines()
                fields = dict(line.split(":", 1) for line in lines if ":" in line)
                if self.process_id in (int(process.name), int(fields["PPid"])):
                    kilobytes += int(fields.get("VmRSS", "0").split()[0])
        return kilobytes * 1024 / 1e6


@contextmanager
def ours(root: Path = PROJECT, **settings: object) -> Iterator[Service]:
    """This project's service, with settings that override the environment's.

    Args:
        root: where the code is; another revision's, perhaps.
        settings: by their names.
    """
    port = free_port()
    environment = {f"BREEDCAM_{name.upper()}": str(value) for name, value in settings.items()}
    environment["BREEDCAM_PORT"] = str(port)
    with _running(["-m", "app.main"], port, environment, root) as service:
        yield service


@contextmanager
def plain(weights: Path) -> Iterator[Service]:
    """The plain FastAPI service of `benchmarks.workers.plain`."""
    port = free_port()
    arguments = ["-m", "benchmarks.workers.plain", "--port", str(port), "--weights", str(weights)]
    with _running(arguments, port, {"TF_CPP_MIN_LOG_LEVEL": "3"}, PROJECT) as service:
        yield service


@contextmanager
def _running(
    arguments: list[str], port: int, environment: dict[str, str], root: Path
) -> Iterator[Service]:
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=root,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
        try:
            while not _ready(port):
                late = time.perf_counter() - start > PATIENCE_S
                if process.poll() is not None or late:
                    log.seek(0)
                    raise WorkerFailed(f"no service: {log.read()[-300:].decode(errors='replace')}")
                time.sleep(0.005)
            yield Service(port, process.pid, time.perf_counter() - start)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(port: int) -> bool:
    try:
        with request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no other process is given.

    On Linux it stays bound until this process ends, so that the system hands it out to nobody else.
    A server that sets `SO_REUSEADDR`, as nearly all do, can listen on it all the same: it is bound
    with that option too, and not listened on.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port: int = reserved.getsockname()[1]
    if sys.platform == "linux":
        atexit.register(reserved.close)
    else:  # elsewhere a bound socket keeps servers out
        reserved.close()
    return port
