from pathlib import Path

import pytest

from training.data.annotations import PixelBox
from training.data.annotations.table import read
from training.data.skipped import Skipped
from training.errors import DataError


def _boxes(tmp_path: Path, text: str, encoding: str = "utf-8") -> list[tuple[str, list[PixelBox]]]:
    path = tmp_path / "boxes.csv"
    path.write_bytes(text.encode(encoding))
    return [(name, boxes) for name, _, boxes in read(path, path.name, Skipped())]


def _report(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    skipped = Skipped()
    list(read(path, path.name, skipped))
    skipped.report()
    return [line.strip() for line in capsys.readouterr().err.splitlines()[1:-1]]


@pytest.mark.parametrize(
    "header",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax",  # Roboflow, TensorFlow
        "image_id,Image Width,image_height,LabelName,XMin,YMin,XMax,YMax",
        "image_path,img_width,img_height,label,x_min,y_min,x_max,y_max",
        "Image,width,height,name,x1,y1,x2,y2",
        "file,width,height,category,left,top,right,bottom",
        "file,image_w,image_h,breed,left,top,right,bottom",
        "file,img_w,img_h,Class Label,left,top,right,bottom",
        "file,w,h,object,left,top,right,bottom",
        "file,original_width,original_height,object_name,left,top,right,bottom",
        "file,photo_width,photo_height,species,left,top,right,bottom",
        "file,im_w,im_h,tag,left,top,right,bottom",
        "file,orig_w,orig_h,class_id,left,top,right,bottom",
    ],
)
def test_headers_of_other_programs(tmp_path: Path, header: str) -> None:
    text = f"{header}\nbeagle/a.jpg,60,48,beagle,1,2,30,40\n"

    box = PixelBox("boxes.csv:2", (1, 2, 30, 40), (60, 48), "beagle")
    assert _boxes(tmp_path, text) == [("beagle/a.jpg", [box])]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_delimiters_line_ends_and_byte_order_marks(
    tmp_path: Path, delimiter: str, end: str, encoding: str
) -> None:
    rows: tuple[list[str], ...] = (
        ["filename", "xmin", "ymin", "xmax", "ymax", "note"],
        ['"a, b; c | d.jpg"', "1", "2", "3", "4.5", ""],
        [],
        ["e.jpg", " 5", "6 ", "7", "8", "x"],
    )

    annotations = _boxes(tmp_path, end.join(map(delimiter.join, rows)), encoding)

    assert [(name, [box.edges for box in boxes]) for name, boxes in annotations] == [
        ("a, b; c | d.jpg", [(1, 2, 3, 4.5)]),
        ("e.jpg", [(5, 6, 7, 8)]),
    ]


@pytest.mark.parametrize(
    ("cells", "size"),
    [
        ("60,48", (60, 48)),
        ("60.0,48.0", (60, 48)),
        ("0,0", None),
        (",", None),
        ("29,38", None),  # of the box 1,2,30,40, not of the image
    ],
)
def test_size_of_the_image(tmp_path: Path, cells: str, size: tuple[int, int] | None) -> None:
    text = f"filename,width,height,xmin,ymin,xmax,ymax\na.jpg,{cells},1,2,30,40\n"

    [(_, [box])] = _boxes(tmp_path, text)

    assert box.image_size == size


def _sizes(tmp_path: Path, *rows: str) -> list[tuple[int, int] | None]:
    text = "\n".join(["filename,width,height,xmin,ymin,xmax,ymax", *rows])
    return [box.image_size for _, boxes in _boxes(tmp_path, text) for box in boxes]


def test_whole_table_says_whether_sizes_are_of_boxes(tmp_path: Path) -> None:
    boxes = ["a.jpg,29.6,38.2,1,2,30.6,40.2", "b.jpg,6,7,5,5,10,11"]  # the second with both ends

    assert _sizes(tmp_path, *boxes) == [None, None]
    assert _sizes(tmp_path, *boxes, "c.jpg,60,48,1,2,30,40") == [(29, 38), (6, 7), (60, 48)]


@pytest.mark.parametrize("corner", [(0, 0), (1, 1)])
def test_box_around_the_whole_photo_has_the_photos_size(
    tmp_path: Path, corner: tuple[int, int]
) -> None:
    x, y = corner
    rows = [f"{name}.jpg,60,48,{x},{y},60,48" for name in "ab"]

    assert _sizes(tmp_path, *rows) == [(60, 48), (60, 48)]


def test_size_of_the_image_comes_before_that_of_the_box(tmp_path: Path) -> None:
    text = "filename,width,height,image_width,image_height,xmin,ymin,xmax,ymax\n"

    [(_, [box])] = _boxes(tmp_path, text + "a.jpg,29,38,60,48,1,2,30,40\n")

    assert box.image_size == (60, 48)


def test_columns_that_may_hold_a_class_or_a_size_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "filename,xmin,ymin,xmax,ymax,class,Dog Breed,class_id,scaled_width,box_width,note"

    assert _report(tmp_path, f"{header}\na.jpg,1,2,3,4,dog,pug,7,60,2,x\n", capsys) == [
        "boxes.csv: Dog Breed, boxes.csv: class_id, boxes.csv: scaled_width: not read as class or "
        "size",
    ]


@pytest.mark.parametrize(("numbers", "names"), [("00", [None, None]), ("07", ["0", "7"])])
def test_number_of_the_only_class_is_no_name(
    tmp_path: Path, numbers: str, names: list[str | None]
) -> None:
    rows = [f"{number}.jpg,1,2,3,4,{number}" for number in numbers]
    text = "\n".join(["filename,xmin,ymin,xmax,ymax,class_id", *rows])

    assert [box.class_name for _, boxes in _boxes(tmp_path, text) for box in boxes] == names


def test_row_of_a_photo_without_objects(tmp_path: Path) -> None:
    assert _boxes(tmp_path, "filename,xmin,ymin,xmax,ymax,class\na.jpg,,,,,\n") == [("a.jpg", [])]


def test_rows_that_cannot_be_used_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        "filename,width,height,xmin,ymin,xmax,ymax",
        "one, two.jpg,60,48,1,2,3,4",  # the comma moves all numbers
        "a.jpg,60,48,1,2,3",
        "a.jpg,wide,48,1,2,3,4",
        "a.jpg,inf,48,1,2,3,4",
        "a.jpg,60,48,1,,3,4",
        "a.jpg,60,48,1,2,3,4,",  # an empty column more does no harm
    ]

    assert _report(tmp_path, "\n".join(rows), capsys) == [
        "boxes.csv:2: it has 8 columns, the first line 7",
        "boxes.csv:3: it has 6 columns, the first line 7",
        "boxes.csv:4: could not convert string to float: 'wide'",
        "boxes.csv:5: cannot convert float infinity to integer",
        "boxes.csv:6: could not convert string to float: ''",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b'filename,xmin,ymin,xmax,ymax\n"a.jpg,1,2,3,4\nb.jpg,1,2,3,4\n',
            "is not CSV: unexpected",
        ),
        ("filename,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n".encode("utf-16"), "is not CSV"),
        (b"filename,left,top,width,height\na.jpg,1,2,3,4\n", "lacks the columns xmax, ymax"),
        (b"\n\n", "lacks the columns filename"),
    ],
)
def test_files_that_are_no_table_of_boxes(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(data)

    with pytest.raises(DataError, match=message):
        list(read(path, path.name, Skipped()))
