import os
from pathlib import Path

import pytest

from app.batch.errors import BatchError
from app.batch.inputs import Photo
from app.batch.output import Manifest, Output, overlay_name
from app.batch.rows import Row
from app.errors import UndecodableImage

MANIFEST = Manifest(
    photos=5,
    input="0",
    model={"name": "dogs", "version": 1},
    endpoint="gradcam",
    query={},
    settings={},
    part_photos=2,
    rows="jsonl",
    overlays=False,
)


def row(number: int) -> Row:
    return Row.refused(Photo(str(number), number, b""), UndecodableImage("no"))


def test_a_part_is_missing_until_it_is_whole(tmp_path: Path) -> None:
    output = Output(tmp_path / "out", MANIFEST)
    assert [MANIFEST.bounds(part) for part in MANIFEST.parts] == [(0, 2), (2, 4), (4, 5)]
    with output.held():
        output.write_part(1, [row(2), row(3)])
        assert output.missing() == [0, 2]
    with output.held():
        assert output.missing() == [0, 2]
        assert [entry.id for entry in output.rows()] == ["2", "3"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    output, path = Output(tmp_path, MANIFEST), tmp_path / "file"
    with output.held():
        path.write_bytes(b"before")
        with pytest.raises(ZeroDivisionError), output.written("file") as file:
            file.write(bytes(10 // len(path.suffix)))
        assert path.read_bytes() == b"before"
        assert not list((tmp_path / ".drafts").iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("input", "1"), ("model", {"name": "cats", "version": 1}), ("part_photos", 3)],
)
def test_a_run_of_something_else_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with Output(tmp_path, MANIFEST).held():
        pass
    other = Output(tmp_path, MANIFEST.model_copy(update={name: value}))
    with pytest.raises(BatchError, match=f"differs in {name} "), other.held():
        pass


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with (
        pytest.raises(BatchError, match="not empty and holds no run"),
        Output(tmp_path, MANIFEST).held(),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_two_do_not_write_to_one_folder(tmp_path: Path) -> None:
    output = Output(tmp_path, MANIFEST)
    with output.held(), pytest.raises(BatchError, match="Another process"), output.held():
        pass


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    output = Output(tmp_path, MANIFEST)
    draft = tmp_path / ".drafts" / "0123456789abcdef"
    draft.parent.mkdir()
    draft.touch()  # of run.json
    with output.held():
        assert not draft.exists()
        draft.touch()  # of a part
    with output.held():
        output.write_overlay("x/y", b"picture")
        assert not draft.exists()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "run.json", "overlays"}


def test_overlays_reach_the_disk_with_their_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, fsync = os.sync, os.fsync

    def count_sync() -> None:
        calls.append("sync")
        sync()

    def count_fsync(file: int) -> None:
        calls.append("fsync")
        fsync(file)

    monkeypatch.setattr(os, "sync", count_sync)
    monkeypatch.setattr(os, "fsync", count_fsync)
    output = Output(tmp_path, MANIFEST.model_copy(update={"overlays": True}))
    with output.held():
        calls.clear()
        for number in range(20):
            output.write_overlay(str(number), b"picture")
        assert calls == []
        output.write_part(0, [row(0), row(1)])
    assert calls == ["sync", "fsync", "fsync"]  # all that is there, the part, its folder


def test_the_summary_counts_all(tmp_path: Path) -> None:
    output = Output(tmp_path, MANIFEST)
    with output.held():
        for part in MANIFEST.parts:
            output.write_part(part, [row(number) for number in range(*MANIFEST.bounds(part))])
        assert output.summarise() == {
            "photos": 5,
            "answered": 0,
            "problems": {"urn:breedcam:error:undecodable-image": 5},
        }


def test_overlays_mirror_the_folders_and_stay_in_theirs() -> None:
    assert overlay_name("a/b c-é.jpg") == "overlays/a/b c-é.jpg.png"
    hostile = ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", ".", "", "a//b", "a/./b"]
    hostile += ["x\0y", "C:\\x", "a\nb", "%2E%2E/x", "x" * 300, "é" * 200]
    names = [overlay_name(name) for name in hostile]
    assert len(set(names)) == len(names)
    for name in names:
        first, *parts = name.split("/")
        assert first == "overlays"
        assert not set(parts) & {"", ".", ".."}
        assert all(len(part.encode()) <= 255 for part in parts)
        assert name.replace("/", "").isprintable()
        assert not set(name) & set('\\:*?"<>|')
