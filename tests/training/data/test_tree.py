import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.data.skipped import Skipped
from training.data.tree import Tree


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _files(root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    skipped = Skipped()
    tree = Tree(root, skipped)
    names = [tree.name(path) for path in tree.files(folder)]
    skipped.report()
    return names, capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/a.jpg", "@Recycle/a.jpg"),
        *("$RECYCLE.BIN/a.jpg", "System Volume Information/a.jpg", "lost+found/a.jpg"),
        *("__MACOSX/a.jpg", "Thumbnails/a.jpg", "2019/@eaDir/a.jpg"),
    ],
)
def test_folders_that_programs_make_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _touch(tmp_path, "beagle/a.jpg", f"beagle/{name}")

    names, errors = _files(tmp_path, tmp_path / "beagle", capsys)

    assert names == ["beagle/a.jpg"]
    folder = "2019/@eaDir" if name.startswith("2019") else name.split("/")[0]
    assert f"beagle/{folder}: thumbnails or system files" in errors


def test_hidden_files_and_those_of_the_system_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _touch(tmp_path, "b/.a.jpg", "b/._a.jpg", "b/.thumbnails/a.jpg", "b/.DS_Store", "b/Thumbs.db")
    _touch(tmp_path, "b/desktop.ini", "b/x/.ipynb_checkpoints/a.jpg", "b/x/a.jpg")

    assert _files(tmp_path, tmp_path / "b", capsys) == (["b/x/a.jpg"], "")


def test_links_are_followed_and_circles_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    _touch(tmp_path, "disk/a.jpg", "disk/deep/b.jpg", "photos/beagle/own/c.jpg")
    beagle = root / "beagle"
    (beagle / "aa").symlink_to(beagle / "own")  # before `own` in the alphabet
    (beagle / "disk").symlink_to(tmp_path / "disk")
    (beagle / "deep").symlink_to(tmp_path / "disk/deep")
    (beagle / "up").symlink_to(root)
    (beagle / "own/self").symlink_to(beagle / "own")
    (beagle / "d.jpg").symlink_to(tmp_path / "disk/a.jpg")
    (tmp_path / "disk/back").symlink_to(beagle)

    names, errors = _files(root, beagle, capsys)

    assert names == [
        *("beagle/d.jpg", "beagle/deep/b.jpg", "beagle/disk/a.jpg", "beagle/own/c.jpg"),
    ]
    lines = {line.strip() for line in errors.splitlines()}
    assert lines >= {
        "beagle/up: a link to ., which is read already",
        "beagle/disk/back: a link to beagle, which is read already",
        "beagle/disk/deep: a link to beagle/deep, which is read already",
    }
    assert "Left out in total: folder 5." in errors


def test_linked_class_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _touch(tmp_path, "disk/2019/a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/beagle").symlink_to(tmp_path / "disk")

    names, errors = _files(tmp_path / "photos", tmp_path / "photos/beagle", capsys)

    assert (names, errors) == (["beagle/2019/a.jpg"], "")


def test_links_to_nothing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _touch(tmp_path, "b/a.jpg")
    (tmp_path / "b/gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "b/loop").symlink_to(tmp_path / "b/loop")

    names, errors = _files(tmp_path, tmp_path / "b", capsys)

    assert names == ["b/a.jpg"]
    assert "b/gone.jpg: cannot be opened: No such file or directory" in errors
    assert "b/loop: cannot be opened: Too many levels of symbolic links" in errors
    assert "Left out in total: file 1, photo 1." in errors


def test_folder_that_may_not_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, "b/a.jpg", "b/locked/b.jpg")
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # root, who runs tests too, may read all folders
        if path.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    names, errors = _files(tmp_path, tmp_path / "b", capsys)

    assert names == ["b/a.jpg"]
    assert "b/locked: cannot be opened: Permission denied" in errors


def test_folder_that_is_gone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, errors = _files(tmp_path, tmp_path / "gone", capsys)

    assert names == []
    assert "gone: cannot be opened: No such file or directory" in errors


def test_relative_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _touch(tmp_path, "beagle/a.jpg")
    (tmp_path / "beagle/up").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)

    names, errors = _files(Path(), Path("beagle"), capsys)

    assert names == ["beagle/a.jpg"]
    assert "beagle/up: a link to ., which is read already" in errors
