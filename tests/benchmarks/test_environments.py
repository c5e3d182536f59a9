import subprocess
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import ensure
from benchmarks.protocol import WorkerFailed


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    (project / "peers").mkdir(parents=True)
    monkeypatch.setattr(environments, "PROJECT", project)
    monkeypatch.setattr(environments, "CACHE", project / ".bench")
    monkeypatch.setattr(environments, "_PINS", project / "peers")
    return project / "peers" / "peer.txt"


@pytest.mark.slow
def test_environment_is_made_once_and_anew_when_its_pins_change(pins: Path) -> None:
    pins.write_text("# nothing\n")
    python = ensure("peer")
    subprocess.run([python, "-c", ""], check=True)
    note = python.parent / "note"
    note.touch()

    assert ensure("peer") == python
    assert note.exists()

    pins.write_text("# nothing else\n")
    assert ensure("peer") == python
    assert not note.exists()


@pytest.mark.slow
def test_environment_that_cannot_be_made_says_why_each_time(pins: Path) -> None:
    pins.write_text("./nowhere-1.0-py3-none-any.whl\n")
    for _ in range(2):
        with pytest.raises(WorkerFailed, match=r"cannot be installed: .*nowhere"):
            ensure("peer")
