import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import revision
from benchmarks.protocol import PROJECT
from benchmarks.timing import Spread
from tests import needs


def test_a_revision_beside_this_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roots: list[Path] = []

    def measure(root: Path, rounds: int) -> dict[str, tuple[Spread, Spread]]:
        roots.append(root)
        return {f"{rounds} rounds": (Spread(9, 10, 11, 5), Spread(10, 12, 14, 5))}

    def extract(name: str, root: Path) -> None:
        (root / name).touch()

    monkeypatch.setattr(revision, "measure", measure)
    monkeypatch.setattr(revision, "extract", extract)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "revision", "abc", "--rounds", "7"])
    command.main()
    row = capsys.readouterr().out.splitlines()[-2]
    assert row == "| 7 rounds | 10.0 (9.0 to 11.0) | 12.0 (10.0 to 14.0) | 1.200 |"
    assert not roots[0].exists()  # nothing of it stays


def test_a_revision_is_extracted_whole(tmp_path: Path) -> None:
    if not (PROJECT / ".git").exists():
        needs.absent("the Git repository")
    revision.extract("HEAD", tmp_path)
    assert (tmp_path / "app" / "main.py").is_file()
    assert (tmp_path / "pyproject.toml").is_file()


@pytest.mark.slow
def test_both_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "PHOTOS", {"224 px": (224, 224)})
    spreads = revision.measure(PROJECT, 2)
    assert set(spreads) == {"`/predict`, 224 px", "`/gradcam`, 224 px"}
    for before, after in spreads.values():
        assert before.count == after.count == 2
