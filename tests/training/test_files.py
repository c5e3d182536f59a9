from pathlib import Path

import pytest

from training.files import atomic_write, replacement


@pytest.mark.parametrize(
    ("content", "stored"),
    [(b"\x00\xff", b"\x00\xff"), ("Löwchen\r\n", b"L\xc3\xb6wchen\r\n")],
    ids=["bytes", "text"],
)
def test_content_is_stored_as_it_is(tmp_path: Path, content: bytes | str, stored: bytes) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(b"a longer file that was there before")

    atomic_write(path, content)

    assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "best.weights.h5"
    path.write_bytes(b"before")

    def fail() -> None:
        with replacement(path) as draft:
            draft.write_bytes(b"half")
            raise RuntimeError("The disk is full.")

    with pytest.raises(RuntimeError, match="full"):
        fail()

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_seen_whole_only(tmp_path: Path) -> None:
    path = tmp_path / "answers.npy"

    with replacement(path) as draft:
        draft.write_bytes(b"half")
        assert not path.exists()
        draft.write_bytes(b"all of it")

    assert path.read_bytes() == b"all of it"


def test_replacement_ends_as_the_file_does(tmp_path: Path) -> None:
    with replacement(tmp_path / "best.weights.h5") as draft:
        draft.touch()

    assert draft.name.endswith(".weights.h5")
    assert draft.parent == tmp_path


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "none" / "data.json", "{}")
