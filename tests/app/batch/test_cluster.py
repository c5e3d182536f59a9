"""On a Ray cluster of two nodes: workers and drivers that are killed."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.batch.cli import main
from app.batch.errors import BatchError
from app.batch.inputs import Photo
from app.batch.output import Output
from app.batch.rows import Row
from app.errors import UndecodableImage
from app.settings import PROJECT
from benchmarks.protocol import Worker
from benchmarks.services import free_port
from tests import needs
from tests.app.batch.runs import (
    check_alike,
    rows,
    run,
    running,
    wait_for_parts,
    write_dogs,
    write_photos,
)
from tests.app.batch.test_output import MANIFEST
from tests.app.services import LONG

SETTINGS = {"max_batch": 8, "threads": 1}


@pytest.fixture
def cluster() -> Any:
    """The module, which needs Ray."""
    if importlib.util.find_spec("ray") is None:
        needs.absent("Ray, which requirements/dev.txt has")
    return importlib.import_module("app.batch.cluster")


@dataclass
class Nodes:
    """The cluster's address, and the process that started its nodes."""

    address: str
    pid: int


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if importlib.util.find_spec("ray") is None:
        needs.absent("Ray, which requirements/dev.txt has")
    with Worker("tests.app.batch.nodes", PYTHONPATH=str(PROJECT)) as worker:
        try:
            yield Nodes(worker.ask("address"), worker.ask("pid"))
        finally:
            worker.ask("stop")


def workers(nodes: Nodes) -> list[int]:
    """Processes of the actors, those of other clusters excepted."""
    return [
        pid
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
        if read(pid, "cmdline").startswith("ray::MapWorker") and nodes.pid in ancestors(pid)
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


def record(place: int, part: int = 0, error: str = "") -> dict[str, Any]:
    number = 2 * part + place
    row = Row.refused(Photo(str(number), number, b""), UndecodableImage("no"))
    text = row.model_dump_json()
    return {"part": part, "place": place, "row": text, "overlay": b"", "error": error}


def test_parts_in_pieces_and_twice_are_written_once(cluster: Any, tmp_path: Path) -> None:
    output, done = Output(tmp_path, MANIFEST), list[int]()
    # A row comes again before its part is whole, and after; one of the last part is lost.
    records = [record(0), record(0, 1), record(0), record(1), record(1), record(1, 1)]
    with output.held():
        cluster._write(iter(records), output, done.append)
    assert [row.id for row in output.rows()] == ["0", "1", "2", "3"]
    assert output.missing() == [2]
    assert done == [2, 2]


def test_a_workers_error_ends_the_run(cluster: Any, tmp_path: Path) -> None:
    output = Output(tmp_path, MANIFEST)
    with output.held(), pytest.raises(BatchError, match="node: no disk"):
        cluster._write(iter([record(0, error="node: no disk")]), output, print)
    assert output.missing() == [0, 1, 2]


@pytest.mark.slow
def test_2000_photos_killed_twice(nodes: Nodes, tmp_path: Path) -> None:
    """By SIGKILL, a worker beside; and then by SIGTERM."""
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_dogs(photos, 2000)
    command = (photos, out, "--part-photos", 50, "--ray", "--ray-address", nodes.address)
    for parts in (5, 15):
        with running(*command, **SETTINGS) as process:
            wait_for_parts(process, out, parts - 4)
            os.kill(workers(nodes)[0], signal.SIGKILL)
            wait_for_parts(process, out, parts)
            process.kill()
            assert process.wait(LONG) == -signal.SIGKILL
        assert 0 < len(rows(out)) < 2000
    with running(*command, **SETTINGS) as process:
        wait_for_parts(process, out, 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 128 + signal.SIGTERM
    status, errors = run(*command, **SETTINGS)
    assert status == 0, errors
    assert "2,000 photos: 2,000 answered, 0 refused." in errors
    assert [row["id"] for row in rows(out)] == names
    assert not (out / ".drafts").exists()


@pytest.mark.slow
def test_rows_and_overlays_are_those_of_one_machine(nodes: Nodes, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 20)
    (photos / "b" / "0001.jpg").write_bytes(b"no photo")
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes((photos / "a" / "0000.jpg").read_bytes())
    options = ("--part-photos", 8, "--overlays")
    exact = {**SETTINGS, "precision": "float32"}
    for out, more in (("ray", ("--ray", "--ray-address", nodes.address)), ("alone", ())):
        status, errors = run("in", out, *options, *more, cwd=tmp_path, **exact)
        assert status == 0, errors
    check_alike(rows(tmp_path / "ray"), rows(tmp_path / "alone"), 1e-4)
    pictures = [
        sorted(path.relative_to(tmp_path / out) for path in (tmp_path / out).rglob("*.png"))
        for out in ("ray", "alone")
    ]
    assert len(pictures[0]) == 20
    assert pictures[0] == pictures[1]
    assert all((tmp_path / "ray" / path).read_bytes()[:4] == b"\x89PNG" for path in pictures[0])


FORGETFUL = """
from app.batch import cli

def open_input(path):
    source = listed(path)
    (path / "b" / "0003.jpg").unlink()
    return source

listed, cli.open_input = cli.open_input, open_input
cli.main()
"""
"""A node does not see a photo that the driver has seen."""


@pytest.mark.slow
def test_a_photo_that_a_node_does_not_see_ends_the_run(nodes: Nodes, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 8)
    command = (photos, out, "--ray", "--ray-address", nodes.address)
    status, errors = run(*command, code=("-c", FORGETFUL), **SETTINGS)
    assert status == 1
    assert "b/0003.jpg has changed since the run began, or differs on" in errors
    assert "Traceback" not in errors
    assert rows(out) == []


def test_no_cluster(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.logs.configure", lambda *_: None)
    write_photos(tmp_path / "in", 1)
    address = f"127.0.0.1:{free_port()}"
    command = (tmp_path / "in", tmp_path / "out", "--ray", "--ray-address", address)
    with pytest.raises(SystemExit, match=f"error: Ray at {address} does not answer: .*refused"):
        main(list(map(str, command)))
