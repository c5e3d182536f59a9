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
