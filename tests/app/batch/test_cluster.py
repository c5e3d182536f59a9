"""On a Ray cluster: workers and drivers that are killed."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import needs
from tests.app.batch.runs import (
    check_alike,
    rows,
    run,
    running,
    wait_for_parts,
    write_photos,
)
from tests.app.services import LONG, environment, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address and the process of a Ray cluster of this machine alone."""
    if importlib.util.find_spec("ray") is None:
        needs.absent("the package ray")
    port = free_port()
    log = tmp_path_factory.mktemp("ray") / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--port={port}", "--num-cpus=2", "--object-store-memory=200000000"),
                *("--include-dashboard=false", "--disable-usage-stats"),
            ],
            env=environment(),
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + LONG
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LONG)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    with socket.socket() as plug:
        return plug.connect_ex(("127.0.0.1", port)) == 0


def workers(cluster: int) -> list[int]:
    """Processes of the actors, those of other clusters excepted."""
    return [
        pid
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
        if read(pid, "cmdline").startswith("ray::MapWorker") and cluster in ancestors(pid)
    ]


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1 and (status := read(pid, "stat")):
        pid = int(status.rpartition(")")[2].split()[1])
        yield pid


def read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def test_2000_photos_killed_twice(cluster: tuple[str, int], tmp_path: Path) -> None:
    address, head = cluster
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_photos(photos, 2000)
    command = (photos, out, "--part-photos", 50, "--ray", address, "--workers", 2)
    settings = {"max_batch": 8, "threads": 1}
    with running(*command, **settings) as process:
        wait_for_parts(process, out, 5)
        process.kill()
    assert 0 < len(rows(out)) < 2000
    with running(*command, **settings) as process:
        wait_for_parts(process, out, 15)
        os.kill(workers(head)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=3 * LONG)
        assert process.returncode == 0, errors
    assert "2,000 photos: 2,000 answered" in errors
    assert [row["id"] for row in rows(out)] == names
    assert not list(out.glob(".draft-*"))

    status, errors = run(photos, tmp_path / "whole", max_batch=8)
    assert status == 0, errors
    check_alike(rows(out), rows(tmp_path / "whole"), 0.1)


def test_no_cluster(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        needs.absent("the package ray")
    write_photos(tmp_path / "in", 1)
    status, errors = run(tmp_path / "in", tmp_path / "out", "--ray", f"127.0.0.1:{free_port()}")
    assert status == 1
    assert errors.splitlines()[-1].startswith("error: Ray at '127.0.0.1:")
