import json
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest

from app.batch.errors import BatchError
from app.batch.inputs import Files, Photo, Source, open_input
from app.errors import MissingImage, TooManyBytes
from tests import needs


def ids(source: Source) -> list[str]:
    return [photo.id for batch in source.batches(0, len(source)) for photo in batch]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_a_folder_has_its_photos_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/1.jpg", "a/z/3.heic", "c.webp", "b/raw.cr2")
    touch(tmp_path, "notes.txt", ".hidden.jpg", ".git/4.jpg", "b/@eaDir/1.jpg", "b/Thumbs.db")
    (tmp_path / "loop").symlink_to(tmp_path)

    source = open_input(tmp_path)

    assert ids(source) == ["c.webp", "a/z/3.heic", "b/1.jpg", "b/2.PNG", "b/raw.cr2"]
    [[photo]] = source.batches(2, 3)
    assert photo == Photo("b/1.jpg", 2, tmp_path / "b/1.jpg", len("b/1.jpg"))


def test_a_list_has_its_lines(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.jpg")
    listed = tmp_path / "x" / "list.txt"
    listed.write_text("1.jpg\n\n/absolute/2.jpg\n../é 3.jpg\n", encoding="utf-8")

    source = open_input(listed)

    assert ids(source) == ["1.jpg", "/absolute/2.jpg", "../é 3.jpg"]
    [[first, second, _]] = source.batches(0, 3)
    assert first.content == tmp_path / "x/1.jpg"
    assert second.content == Path("/absolute/2.jpg")


def test_a_coco_file_has_ids_of_its_own(tmp_path: Path) -> None:
    annotations = tmp_path / "instances.json"
    images = [{"id": 42, "file_name": "b.jpg"}, {"id": 7, "file_name": "a.jpg"}]
    annotations.write_text(json.dumps({"images": images, "annotations": []}))

    [[first, second]] = open_input(annotations).batches(0, 2)

    assert (first.id, first.image_id) == ("b.jpg", 42)
    assert (second.id, second.image_id) == ("a.jpg", 7)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("list.txt", "1.jpg\n2.jpg\n1.jpg\n", "'1.jpg' is in the input twice"),
        ("x.json", "{}", "not a COCO file"),
        (
            "x.json",
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}',
            "id 1",
        ),
        ("x.parquet", "no", "cannot be read as Parquet"),
        ("1.jpg", "\0", "not a text file with a path on each line"),
    ],
)
def test_what_is_no_input_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BatchError, match=reason):
        open_input(tmp_path / name)


def test_the_digest_changes_with_the_photos(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    before = open_input(tmp_path).digest()
    assert open_input(tmp_path).digest() == before
    (tmp_path / "2.jpg").write_bytes(b"longer than before")
    changed = open_input(tmp_path).digest()
    (tmp_path / "2.jpg").rename(tmp_path / "3.jpg")
    assert len({before, changed, open_input(tmp_path).digest()}) == 3


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "empty.jpg").touch()
    source = Files(tmp_path, ["1.jpg", "absent.jpg", "empty.jpg", ".", "a\0b"])
    [[good, absent, empty, folder, nameless]] = source.batches(0, 5)

    assert good.read(good.size(5)) == b"1.jpg"
    with pytest.raises(TooManyBytes, match="limit of 4 bytes"):
        good.size(4)
    for photo, reason in [
        (absent, "No such file"),
        (empty, "no bytes in it"),
        (folder, "does not name a file"),
        (nameless, "the path is malformed"),
    ]:
        with pytest.raises(MissingImage, match=reason):
            photo.size(5)


@pytest.mark.parametrize("change", ["gone", "longer", "unreadable", "new"])
def test_photos_that_change_end_the_run(tmp_path: Path, change: str) -> None:
    touch(tmp_path, "1.jpg")
    [[photo, absent]] = Files(tmp_path, ["1.jpg", "absent.jpg"]).batches(0, 2)
    size, file = photo.size(100), tmp_path / "1.jpg"
    if change in ("gone", "unreadable"):
        file.unlink()
    if change == "unreadable":
        file.mkdir()
    if change == "longer":
        file.write_bytes(b"longer than before")
        with pytest.raises(BatchError, match=r"1\.jpg has changed"):
            photo.read(size)
    if change == "new":
        photo = absent
        touch(tmp_path, "absent.jpg")
    with pytest.raises(BatchError, match="jpg has changed since the run began, or differs on"):
        photo.size(100)


def test_errors_of_the_machine_are_not_the_photos(tmp_path: Path) -> None:
    """Without any file to be opened, in the list, and later; for each, it is another try."""
    touch(tmp_path, "1.jpg")
    [[photo]] = Files(tmp_path, ["1.jpg"]).batches(0, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        for attempt in (
            lambda: photo.size(100),
            lambda: photo.read(5),
            lambda: Files(tmp_path, ["1.jpg"]),
        ):
            with pytest.raises(OSError, match=r"Too many open files.*1\.jpg"):
                attempt()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert photo.read(photo.size(100)) == b"1.jpg"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"photo")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"caf\xe9.jpg\n")
    for source in (open_input(tmp_path), open_input(listed)):
        [[photo]] = source.batches(0, 1)
        assert photo.id == "caf\\udce9.jpg"
        assert photo.id.encode()
        assert photo.read(photo.size(100)) == b"photo"
        assert source.digest()


def test_relative_paths_hold_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/1.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_input(Path("in"))
    monkeypatch.chdir("/")
    [[photo]] = source.batches(0, 1)
    assert photo.content == tmp_path / "in" / "1.jpg"
    assert photo.size(100)


def parquet(path: Path, columns: dict[str, Any], **options: int) -> Source:
    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ImportError:
        needs.absent("the package pyarrow")
    write_table(pa.table(columns), path, **options)
    return open_input(path)


def test_parquet_gives_each_row_once_from_anywhere(tmp_path: Path) -> None:
    data = [f"photo {number}".encode() for number in range(100)]
    numbers = [1000 - number for number in range(100)]
    source = parquet(
        tmp_path / "x.parquet", {"bytes": data, "image_id": numbers}, row_group_size=30
    )
    expected = [Photo(str(i), 1000 - i, data[i]) for i in range(100)]

    def read(start: int, stop: int) -> list[Photo]:
        return [photo for batch in source.batches(start, stop) for photo in batch]

    assert read(0, 25) + read(25, 50) == expected[:50]
    assert read(70, 100) == expected[70:]
    assert read(30, 33) == expected[30:33]
    assert read(33, 100) == expected[33:]


def test_parquet_of_paths_and_of_datasets(tmp_path: Path) -> None:
    paths = parquet(tmp_path / "p.parquet", {"path": ["a.jpg", "/b.jpg"]})
    [[first, second]] = paths.batches(0, 2)
    assert first == Photo("a.jpg", 0, tmp_path / "a.jpg")
    assert second.content == Path("/b.jpg")

    images = [{"bytes": b"one", "path": None}, {"bytes": None, "path": "x"}]
    dataset = parquet(tmp_path / "d.parquet", {"image": images, "id": ["x", "y"]})
    [[first, second]] = dataset.batches(0, 2)
    assert first == Photo("x", 0, b"one")
    with pytest.raises(MissingImage):
        second.size(5)


def test_parquet_is_checked(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="no column of photos"):
        parquet(tmp_path / "a.parquet", {"picture": [b"x"]})
    with pytest.raises(BatchError, match="'x' is in the input twice"):
        parquet(tmp_path / "b.parquet", {"bytes": [b"1", b"2"], "id": ["x", "x"]}).digest()
    one = parquet(tmp_path / "c.parquet", {"bytes": [b"1", b"2"]}).digest()
    other = parquet(tmp_path / "d.parquet", {"bytes": [b"1", b"3"]}).digest()
    assert one != other


def test_parquet_that_differs_elsewhere(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", {"bytes": [b"1", b"2"]})
    elsewhere = pickle.dumps(source)
    assert ids(pickle.loads(elsewhere)) == ["0", "1"]
    parquet(tmp_path / "a.parquet", {"bytes": [b"1", b"3"]})
    with pytest.raises(BatchError, match="differs on"):
        pickle.loads(elsewhere)
