import importlib
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import cuts, document, machine
from benchmarks.results import Measured, Part, Target


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    command.main()


def test_a_part_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "nothing")
    assert "nothing" in capsys.readouterr().err


def test_every_part_is_a_module() -> None:
    for name in command.PARTS:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_what_is_measured_is_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = tmp_path / "performance.json"
    monkeypatch.setattr(command, "RESULT", result)
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    monkeypatch.setattr(cuts, "run", lambda rounds: Part("Cuts", f"{rounds} rounds"))

    run(monkeypatch, "cuts", "--rounds", "7", "--write")
    assert "7 rounds" in capsys.readouterr().out
    assert "7 rounds" in result.with_suffix(".md").read_text()

    target = Target("it", 1.0, 2.0)
    monkeypatch.setattr(cuts, "run", lambda rounds: Part("Cuts", "again", targets=[target]))
    run(monkeypatch, "cuts", "--write")
    text = result.with_suffix(".md").read_text()
    assert "again" in text
    assert "7 rounds" not in text
    assert "| it | 1 (at most 2) |" in text


def test_what_other_machines_measured_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = tmp_path / "performance.json"
    monkeypatch.setattr(command, "RESULT", result)
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    monkeypatch.setattr(cuts, "run", lambda rounds: Part("Cuts", "now"))
    outdated = Measured(machine.describe() | {"openvino": "1"}, {"http": Part("HTTP", "before")})
    another = Measured({"processor": "another"}, {"http": Part("HTTP", "elsewhere")})
    document.write(result, {machine.kind(): outdated, "another kind": another})

    run(monkeypatch, "cuts", "--write")

    now = Measured(machine.describe(), {"cuts": Part("Cuts", "now")})
    # This machine's column comes last, and so its wording counts.
    assert list(document.read(result).items()) == [("another kind", another), (machine.kind(), now)]
