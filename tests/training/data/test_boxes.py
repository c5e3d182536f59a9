import json
from pathlib import Path

import pytest

from tests.training.folders import voc
from training.data.annotations import PixelBox
from training.data.boxes import read_boxes, relative_box
from training.data.skipped import Skipped
from training.errors import DataError

PHOTOS = {
    "beagle/a.jpg": "beagle",
    "beagle/b.jpg": "beagle",
    "dingo/b.jpg": "dingo",
    "dingo/c.d.png": "dingo",
}


def _read(
    directory: Path, source: Path | None = None, photos: dict[str, str] = PHOTOS
) -> dict[str, list[tuple[float, ...]]]:
    read = read_boxes(directory, photos, source=source, skipped=Skipped())
    return {photo: [box.edges for box in boxes] for photo, boxes in read.items() if boxes}


def _report(directory: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    skipped = Skipped()
    read_boxes(directory, PHOTOS, skipped=skipped)
    skipped.report()
    return [line.strip() for line in capsys.readouterr().err.splitlines()]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_fractions_of_a_box_worked_out_by_hand() -> None:
    assert relative_box(PixelBox("", (10, 20, 30, 40), (40, 80)), 40, 80) == (0.25, 0.25, 0.75, 0.5)
    assert relative_box(PixelBox("", (-5, 20, 30, 90), None), 40, 80) == (0.0, 0.25, 0.75, 1.0)
    assert relative_box(PixelBox("", (0, 0, 1, 1), None), 1, 1) == (0.0, 0.0, 1.0, 1.0)
    assert relative_box(PixelBox("", (20, 0, 60, 80), None), 40, 80) == (0.5, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("edges", "image_size", "message"),
    [
        ((30, 20, 10, 40), None, "30,20,10,40 is reversed"),
        ((10, 20, 10, 40), None, "empty"),
        ((40, 0, 50, 10), None, "outside the photo of 40 x 80"),
        ((0, -9, 5, 0), None, "outside"),
        ((0, 0, float("nan"), 5), None, "not finite"),
        ((0, 0, float("inf"), 5), None, "not finite"),
        ((0.25, 0, 0.75, 1), None, "0.25,0,0.75,1 is given in fractions"),
        ((-0.1, 0.2, 0.5, 0.6), (40, 80), "fractions"),
        ((10, 10, 200, 300), None, "mostly outside the photo of 40 x 80"),
        (
            (0, 0, 5, 5),
            (80, 40),
            "to an image of 80 x 40 pixels, but the upright photo has 40 x 80",
        ),
    ],
)
def test_boxes_that_do_not_fit(
    edges: tuple[float, float, float, float], image_size: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        relative_box(PixelBox("", edges, image_size), 40, 80)


def test_voc_beside_the_photos_and_in_annotations(tmp_path: Path) -> None:
    _write(tmp_path / "beagle/a.xml", voc((1, 2, 3, 4), (5, 6, 7, 8)))
    _write(tmp_path / "annotations/beagle/b.xml", voc((1, 1, 2, 2)))
    _write(tmp_path / "annotations/c.d.xml", voc((3, 3, 4, 4)))
    _write(tmp_path / "annotations/.hidden.xml", "no matter")

    assert _read(tmp_path) == {
        "beagle/a.jpg": [(1, 2, 3, 4), (5, 6, 7, 8)],
        "beagle/b.jpg": [(1, 1, 2, 2)],
        "dingo/c.d.png": [(3, 3, 4, 4)],
    }


def test_voc_of_folders_of_splits(tmp_path: Path) -> None:
    photos = {"train/beagle/a.jpg": "beagle", "test/beagle/b.jpg": "beagle"}
    _write(tmp_path / "annotations/beagle/a.xml", voc((1, 1, 2, 2)))
    _write(tmp_path / "annotations/test/beagle/b.xml", voc((3, 3, 4, 4)))

    assert _read(tmp_path, photos=photos) == {
        "train/beagle/a.jpg": [(1, 1, 2, 2)],
        "test/beagle/b.jpg": [(3, 3, 4, 4)],
    }


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("poodle/a.jpg", None),
        ("poodle/2019/c.jpg", None),
        ("/data/poodle/a.jpg", None),
        ("dingo/beagle/a.jpg", None),
        ("beagle/2020/a.jpg", None),
        ("/data/beagle/a.jpg", "train/beagle/a.jpg"),
        (r"data\beagle\2019\c.jpg", "test/beagle/2019/c.jpg"),
        ("beagle/c.jpg", "test/beagle/2019/c.jpg"),
        ("test/c.jpg", "test/beagle/2019/c.jpg"),
        ("a.jpg", "train/beagle/a.jpg"),
    ],
)
def test_folders_of_a_name(tmp_path: Path, name: str, photo: str | None) -> None:
    """One that is neither before the class nor the photo's own is of another picture."""
    photos = {
        "train/beagle/a.jpg": "beagle",
        "test/beagle/2019/c.jpg": "beagle",
        "test/dingo/d.jpg": "dingo",
    }
    _write(tmp_path / "boxes.csv", f"filename,xmin,ymin,xmax,ymax\n{name},1,2,3,4\n")

    assert list(_read(tmp_path, photos=photos)) == ([] if photo is None else [photo])


def test_voc_without_suffix_as_in_stanford_dogs_archive(tmp_path: Path) -> None:
    archive = tmp_path / "Annotation"
    _write(archive / "beagle/a", voc((1, 2, 3, 4)))

    assert _read(tmp_path, archive) == {"beagle/a.jpg": [(1, 2, 3, 4)]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("beagle/z.xml", voc((1, 2, 3, 4)), "beagle/z.xml: there is no photo beagle/z"),
        ("dingo/a.xml", voc((1, 2, 3, 4)), "dingo/a.xml: there is no photo dingo/a"),
        ("annotations/b.xml", voc((1, 2, 3, 4)), "ambiguous: beagle/b.jpg or dingo/b.jpg"),
        ("beagle/a.xml", "<annotation>", "beagle/a.xml: not VOC XML: no element found"),
        ("beagle/a.xml", "", "not VOC XML"),
        ("beagle/a.xml", "<html/>", "its root is <html>, not <annotation>"),
        ("beagle/a.xml", voc((1, 2, 3, 4)).replace("<ymin>2</ymin>", ""), "four numbers"),
        ("beagle/a.xml", voc((1, 2, 3, 4)).replace(">2<", ">two<"), "two"),
        ("beagle/a.xml", voc((1, 2, 3, 4)).replace(">60<", ">inf<"), "infinity"),
        (
            "beagle/a.xml",
            '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
            "has a DOCTYPE",
        ),
        (
            "beagle/a.xml",
            f"<annotation>{' ' * 1_000_001}</annotation>",
            "larger than 1000000 bytes",
        ),
    ],
)
def test_xml_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    _write(tmp_path / name, text)

    first, line, last = _report(tmp_path, capsys)

    assert first == "Left out:"
    assert name in line
    assert message in line
    assert last == "Left out in total: annotation 1."


def _coco(**changes: object) -> str:
    contents = {
        "images": [
            {"id": 7, "file_name": "beagle/a.jpg", "width": 60, "height": 48},
            {"id": 8, "file_name": "pictures/dingo/b.jpg"},
            {"id": 9, "file_name": "c.d.png"},
        ],
        "annotations": [
            {"image_id": 8, "bbox": [1, 2, 10, 20]},
            {"image_id": 7, "bbox": [0, 0, 5, 6.5]},
        ],
    }
    return json.dumps(contents | changes)


@pytest.mark.parametrize("name", ["annotations.json", "all.json", "annotations/instances.json"])
def test_coco(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, _coco())

    assert _read(tmp_path) == {"dingo/b.jpg": [(1, 2, 11, 22)], "beagle/a.jpg": [(0, 0, 5, 6.5)]}
    [box] = read_boxes(tmp_path, PHOTOS, skipped=Skipped())["beagle/a.jpg"]
    assert box.image_size == (60, 48)


def test_coco_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations: list[object] = [
        {"image_id": 5, "bbox": [1, 2, 3, 4]},
        {"image_id": 7, "bbox": [1, 2]},
        3,
    ]
    annotations.append({"image_id": 7, "bbox": [10**400, 0, 1, 1]})
    pictures = [{"id": 7, "file_name": "gone.jpg"}, {"id": 8}]
    _write(tmp_path / "my.json", _coco(images=pictures, annotations=annotations))
    _write(tmp_path / "notes.json", "{}")

    report = _report(tmp_path, capsys)

    assert [line.split(" (")[0] for line in report] == [
        "Left out:",
        "notes.json: not COCO JSON: it has no lists `images` and `annotations`",
        "my.json: image 1: malformed",
        "my.json: annotation 0: malformed",
        "my.json: annotation 1: malformed",
        "my.json: annotation 2: malformed",
        "my.json: annotation 3: malformed",
        "gone.jpg: there is no photo gone.jpg",
        "Left out in total: annotation 7.",
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', "[" * 100_000])
def test_annotations_json_that_is_no_coco_is_an_error(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path / "annotations.json", text)

    with pytest.raises(DataError, match=r"annotations\.json is not COCO JSON"):
        _read(tmp_path)
    with pytest.raises(DataError, match=r"other\.json is not COCO JSON"):
        _read(tmp_path, path.rename(tmp_path / "other.json"))


def test_csv_in_any_order_of_columns(tmp_path: Path) -> None:
    text = "\ufeffxmin, xmax, ymin, ymax, filename, note\r\n1,3,2,4,a.jpg,x\r\n"
    _write(tmp_path / "boxes.csv", text + "5,7,6,8.5,dingo/b.jpg,\r\n5,9,6,9,a.jpg,y\r\n")

    assert _read(tmp_path) == {
        "beagle/a.jpg": [(1, 2, 3, 4), (5, 6, 9, 9)],
        "dingo/b.jpg": [(5, 6, 7, 8.5)],
    }


def test_csv_rows_that_cannot_be_used_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["xmin,ymin,xmax,ymax,filename", "1,2,3", "1,2,3,x,a.jpg", "1,2,3,4,b.jpg", "1,2,3,4"]
    _write(tmp_path / "boxes.csv", "\n".join(rows))

    report = _report(tmp_path, capsys)

    assert report[1:] == [
        "boxes.csv:2: it has 3 columns, the first line 5",
        "boxes.csv:3: could not convert string to float: 'x'",
        "boxes.csv:5: it has 4 columns, the first line 5",
        "boxes.csv:4: ambiguous: beagle/b.jpg or dingo/b.jpg",
        "Left out in total: annotation 4.",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"filename,xmin\n", "lacks the columns ymin, xmax, ymax"), (b"", "lacks"), (b"\xff", "CSV")],
)
def test_csv_without_its_header(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "boxes.csv").write_bytes(data)

    with pytest.raises(DataError, match=message):
        _read(tmp_path)


def test_two_formats_are_an_error_until_one_is_chosen(tmp_path: Path) -> None:
    table = _write(tmp_path / "boxes.csv", "filename,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n")
    _write(tmp_path / "beagle/b.xml", voc((5, 6, 7, 8)))
    coco = _write(tmp_path / "annotations.json", _coco())

    with pytest.raises(DataError, match=r"3 formats.*beagle/b\.xml.*boxes\.csv.*--boxes"):
        _read(tmp_path)
    assert _read(tmp_path, table) == {"beagle/a.jpg": [(1, 2, 3, 4)]}
    assert set(_read(tmp_path, coco)) == {"beagle/a.jpg", "dingo/b.jpg"}
    assert _read(tmp_path, tmp_path) == {"beagle/b.jpg": [(5, 6, 7, 8)]}


def test_source_without_boxes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "boxes.txt").touch()

    for name, message in (("none", "no file"), ("empty", "no VOC"), ("boxes.txt", "neither")):
        with pytest.raises(DataError, match=message):
            _read(tmp_path, tmp_path / name)


def test_no_boxes_at_all(tmp_path: Path) -> None:
    assert _read(tmp_path) == {}


BREEDS = {
    "n00000001-red_dog/a.jpg": "n00000001-red_dog",
    "n00000001-red_dog/b.jpg": "n00000001-red_dog",
    "\u00c9pagneul/c.jpg": "\u00c9pagneul",
}


def _objects(*names: str) -> str:
    """VOC XML of objects; the nth has its right edge at n + 1."""
    objects = "".join(
        f"<object>{name and f'<name>{name}</name>'}<bndbox><xmin>0</xmin><ymin>0</ymin>"
        f"<xmax>{number + 1}</xmax><ymax>5</ymax></bndbox></object>"
        for number, name in enumerate(names)
    )
    return f"<annotation>{objects}</annotation>"


@pytest.mark.parametrize(
    "name",
    ["n00000001", "Red dog", " red_dog ", "n00000001-red_dog", "RED-DOG", "dog", "Object", ""],
)
def test_names_of_a_photos_class(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "n00000001-red_dog/a.xml", _objects("person", name, "\u00c9pagneul"))

    boxes = _read(tmp_path, photos=BREEDS)

    assert boxes == {"n00000001-red_dog/a.jpg": [(0, 0, 2, 5)]}


def test_decomposed_name_of_a_class(tmp_path: Path) -> None:
    _write(tmp_path / "annotations/c.xml", _objects("e\u0301pagneul", "red dog"))

    assert _read(tmp_path, photos=BREEDS) == {"\u00c9pagneul/c.jpg": [(0, 0, 1, 5)]}


def test_dog_is_any_class_unless_it_is_one_of_the_data(tmp_path: Path) -> None:
    photos = {"dog/a.jpg": "dog", "cat/b.jpg": "cat"}
    _write(tmp_path / "dog/a.xml", _objects("dog", "cat"))
    _write(tmp_path / "cat/b.xml", _objects("dog", "cat", "pet"))

    assert _read(tmp_path, photos=photos) == {
        "dog/a.jpg": [(0, 0, 1, 5)],
        "cat/b.jpg": [(0, 0, 2, 5), (0, 0, 3, 5)],
    }


def test_boxes_of_other_objects_are_counted_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "beagle/a.xml", _objects("person", "beagle", "person", "frisbee"))
    _write(tmp_path / "beagle/b.xml", _objects("person", "dingo", "person"))

    assert _report(tmp_path, capsys) == [
        "Left out:",
        "beagle/a.jpg (beagle/a.xml), beagle/a.jpg (beagle/a.xml), beagle/b.jpg (beagle/b.xml) "
        "and 1 more: `person` is not the class of the photo",
        "beagle/a.jpg (beagle/a.xml): `frisbee` is not the class of the photo",
        "beagle/b.jpg (beagle/b.xml): `dingo` is not the class of the photo",
        "Left out in total: box 6.",
    ]


def test_tables_and_json_that_are_not_read_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "_annotations.csv", "filename,xmin\n")
    _write(tmp_path / "train/_annotations.coco.json", "{}")
    _write(tmp_path / "Boxes.CSV", "filename,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n")

    assert _read(tmp_path) == {"beagle/a.jpg": [(1, 2, 3, 4)]}
    assert _report(tmp_path, capsys) == [
        "Left out:",
        "_annotations.csv, train/_annotations.coco.json: not read; for boxes, pass it to --boxes",
        "Left out in total: file 2.",
    ]


def test_apples_metadata_is_no_annotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("._all.json", "beagle/._a.xml", "beagle/@eaDir/a.xml", "__MACOSX/beagle/a.xml"):
        _write(tmp_path / name, "\x00\x05\x16\x07")
    _write(tmp_path / "all.json", _coco())

    assert set(_read(tmp_path)) == {"dingo/b.jpg", "beagle/a.jpg"}
    assert _report(tmp_path, capsys) == []


def test_voc_beside_the_photos_of_a_linked_folder(tmp_path: Path) -> None:
    _write(tmp_path / "disk/a.xml", voc((1, 2, 3, 4)))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "beagle").symlink_to(tmp_path / "disk")

    assert _read(folder) == {"beagle/a.jpg": [(1, 2, 3, 4)]}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("001.Affenpinscher", "affenpinscher"),
        ("Affenpinscher", "001.Affenpinscher"),
        ("St. Bernard", "St Bernard"),
        ("golden_retriever", "GoldenRetriever"),
        ("golden retriever", "n02099601_golden_retriever"),
        ("n02099601-golden_retriever", "Golden-Retriever"),
    ],
)
def test_punctuation_and_numbers_of_a_name_do_not_matter(
    tmp_path: Path, folder: str, name: str
) -> None:
    photos = {f"{folder}/a.jpg": folder, "n02099602-other/b.jpg": "n02099602-other"}
    _write(tmp_path / "annotations/a.xml", _objects("person", name))

    assert _read(tmp_path, photos=photos) == {f"{folder}/a.jpg": [(0, 0, 2, 5)]}


def test_numbers_matter_where_they_alone_tell_classes_apart(tmp_path: Path) -> None:
    photos = {"1.dingo/a.jpg": "1.dingo", "2.dingo/b.jpg": "2.dingo"}
    _write(tmp_path / "annotations/a.xml", _objects("1.dingo", "2.dingo", "dingo"))

    assert _read(tmp_path, photos=photos) == {"1.dingo/a.jpg": [(0, 0, 1, 5)]}


@pytest.mark.parametrize("folder", ["dog", "Dogs"])
def test_neither_dog_nor_dogs_is_any_class_where_one_is_a_class(
    tmp_path: Path, folder: str
) -> None:
    photos = {f"{folder}/a.jpg": folder, "cat/b.jpg": "cat"}
    _write(tmp_path / "annotations/b.xml", _objects("dog", "dogs", "cat"))

    assert _read(tmp_path, photos=photos) == {"cat/b.jpg": [(0, 0, 3, 5)]}


def test_names_that_fit_no_class_at_all_share_a_line_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "beagle/a.xml", _objects("0", "1"))
    _write(tmp_path / "beagle/b.xml", _objects("x" * 300))  # longer than a class may be called

    _, line, total = _report(tmp_path, capsys)

    assert line.startswith("beagle/a.jpg (beagle/a.xml), beagle/a.jpg (beagle/a.xml), beagle/b.jpg")
    assert line.endswith("If all show the photo's class, rename them to `object`")
    assert total == "Left out in total: box 3."


@pytest.mark.parametrize(
    "column", ["breed", "Class Label", "object_name", "species", "tag", "type"]
)
def test_box_of_a_person_in_a_column_of_any_name_is_not_the_dogs(
    tmp_path: Path, column: str
) -> None:
    rows = ["a.jpg,1,2,3,4,beagle", "a.jpg,5,6,7,8,person"]
    _write(tmp_path / "boxes.csv", "\n".join([f"filename,xmin,ymin,xmax,ymax,{column}", *rows]))

    assert _read(tmp_path) == {"beagle/a.jpg": [(1, 2, 3, 4)]}
