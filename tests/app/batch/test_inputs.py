import json
from pathlib import Path

import pytest

from app.batch.errors import BatchError
from app.batch.inputs import Files, Parquet, Photo, Source, open_input
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
    assert photo == Photo("b/1.jpg", 2, tmp_path / "b/1.jpg")


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
        (folder, "not that of a file"),
        (nameless, "its name is none"),
    ]:
        with pytest.raises(MissingImage, match=reason):
            photo.size(5)


def parquet(path: Path, columns: dict[str, list[object]], **options: int) -> Parquet:
    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ImportError:
        needs.absent("the package pyarrow")
    write_table(pa.table(columns), path, **options)
    return Parquet(path)


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

    images: list[object] = [{"bytes": b"one", "path": None}, {"bytes": None, "path": "x"}]
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
