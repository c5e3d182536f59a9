"""The service as a process of its own, for tests that speak to it over a socket."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.engines import cpu_has_bfloat16
from app.settings import PROJECT
from benchmarks.services import free_port
from tests import needs

LONG = 60.0
"""Seconds; a test that comes near it has failed."""

ENDLESS = {
    name: 600
    for name in ("deadline_s", "header_timeout_s", "read_timeout_s", "keep_alive_s", "stuck_s")
}
"""Settings of a service that gives up on no client within `LONG`: what ends is ended otherwise."""


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        until = time.monotonic() + LONG
        # To read certificates for each call would take half a core from the service.
        with httpx.Client(base_url=self.url, timeout=LONG, verify=False) as client:
            while time.monotonic() < until:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(0.05)
        pytest.fail(f"not ready: {self.log.read_text()}")

    def peak_mb(self) -> float:
        """The most memory that it has had in use, since `forget_peak` or its start."""
        status = self._read("status").splitlines()
        [line] = [line for line in status if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1e3

    def forget_peak(self) -> float:
        """Count the peak anew; returns what is in use now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.peak_mb()

    def _read(self, name: str) -> str:
        path = Path(f"/proc/{self.process.pid}/{name}")
        if not path.exists():
            needs.absent("/proc, where memory and processor time are read")
        return path.read_text()

    def processor_s(self) -> float:
        """Processor seconds of the process so far, all its threads together."""
        return _processor_s(self._read("stat"))

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sent)
        return self.process.wait(LONG)


def processor_s(pid: int) -> float:
    """Processor seconds of a process so far, all its threads together."""
    return _processor_s(Path(f"/proc/{pid}/stat").read_text())


def _processor_s(stat: str) -> float:
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BREEDCAM_")}
    chosen = {f"BREEDCAM_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"} | chosen


@contextmanager
def serving(directory: Path, *arguments: str, **settings: object) -> Iterator[Service]:
    """A ready service, started in a directory that is not the project's."""
    port, log = free_port(), directory / "log"
    variables = environment(**{"port": port, "max_batch": 1, "engine": "openvino", **settings})
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "app.main"))],
            cwd=directory,
            env=variables,
            stdout=sink,
            stderr=sink,
        )
    try:
        service = Service(process, port, log)
        service.wait_until_ready()
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(LONG)


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            children.append(int(status.parent.name))
    return [pid, *children]


def footprint_mb(pids: Sequence[int]) -> float:
    """Resident memory of processes; a part of a file that several have mapped counts once."""
    anonymous, mapped = 0, Counter[str]()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
        except OSError:
            continue  # ended meanwhile
        for line in lines:
            name, value, *rest = line.split()
            if not name.endswith(":"):  # addresses, permissions, offset, device, inode, path
                part = " ".join(rest)
            elif name == "Rss:":
                resident = int(value)
            elif name == "Anonymous:":
                anonymous += int(value)
                mapped[part] = max(mapped[part], resident - int(value))
    return (anonymous + mapped.total()) * 1024 / 1e6


FLOAT = "bfloat16" if cpu_has_bfloat16() else "float32"
"""The precision of `auto` where it is not 8-bit integers."""

AT_REST_MB = {"int8": 700.0, "bfloat16": 700.0, "float32": 1000.0}
"""By precision: at most, of a service and its decoders, 20 s after any traffic (`footprint_mb`)."""


def wait_for_memory(pids: Sequence[int], limit_mb: float) -> None:
    """Wait until processes have given back so much memory that they stay below the limit."""
    until = time.monotonic() + LONG
    while (memory_mb := footprint_mb(pids)) > limit_mb:
        assert time.monotonic() < until, f"{memory_mb:.0f} MB at rest"
        time.sleep(0.2)


def resident_mb(pids: Sequence[int]) -> float:
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue  # ended meanwhile
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
