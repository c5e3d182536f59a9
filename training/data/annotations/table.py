"""A table of boxes: a CSV file with a row for each box."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from training.data.annotations.annotation import (
    EDGES,
    Annotation,
    PixelBox,
    four_numbers,
    image_size,
)
from training.data.skipped import Skipped
from training.errors import DataError

__all__ = ["COLUMNS", "read"]

COLUMNS = ("filename", *EDGES)
"""Required columns, in any order."""

_ALIASES = {
    "filename": (
        *("file", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "imageid"),
        *("img", "imgname", "imgpath", "photo"),
    ),
    "xmin": ("x1", "left"),
    "ymin": ("y1", "top"),
    "xmax": ("x2", "right"),
    "ymax": ("y2", "bottom"),
    "class": ("classname", "label", "labelname", "category", "categoryname", "name"),
    "width": ("imagewidth", "imgwidth"),
    "height": ("imageheight", "imgheight"),
}
"""Other names of the columns that are read, as Roboflow, Kaggle, Open Images and others have them;
in lower case, without punctuation (`x_min` is `xmin`)."""


def read(path: Path, name: str, skipped: Skipped) -> Iterator[Annotation]:
    """One annotation for each row, with its one box; without a box where all edges are empty.

    Args:
        path: of the file: UTF-8, its columns separated by commas, semicolons, tabs or bars.
        name: of the file in messages.
        skipped: collects rows that are malformed.

    Raises:
        DataError: the file is not CSV, or a column is missing.
    """
    try:
        # utf-8-sig: a spreadsheet's export may begin with a byte order mark.
        text = path.read_bytes().decode("utf-8-sig")
        header, rows = _parse(text)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not CSV: {error}.") from error
    index = _column_index(header)
    missing = [column for column in COLUMNS if column not in index]
    if missing:
        raise DataError(f"The first line of {path} lacks the columns {', '.join(missing)}.")
    for line, row in rows:
        location = f"{name}:{line}"
        try:
            if len(row) < len(header) or any(row[len(header) :]):
                raise ValueError(f"it has {len(row)} columns, the first line {len(header)}")
            cells = {column: row[place].strip() for column, place in index.items()}
            boxes = [_box(cells, location)] if any(cells[edge] for edge in EDGES) else []
        except (ValueError, OverflowError) as error:
            skipped.add("annotation", location, error)
            continue
        yield Annotation(cells["filename"], False, boxes)


def _parse(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The first line, and the rows that are not blank, each with the number of its last line.

    The delimiter is the one by which the first line has most of the columns that are read.
    """
    first = text.lstrip().splitlines()[:1]
    headers = {
        delimiter: next(csv.reader(first, delimiter=delimiter, skipinitialspace=True), [])
        for delimiter in ",;\t|"
    }
    delimiter = max(headers, key=lambda key: len(_column_index(headers[key])))
    # strict: a quotation mark without its partner would hide the rest of the file.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows = [(reader.line_num, row) for row in reader if row]
    return (rows[0][1], rows[1:]) if rows else ([], [])


def _column_index(header: list[str]) -> dict[str, int]:
    """Where the columns are that are read, by the names of `COLUMNS` and `_ALIASES`."""
    plain = [re.sub(r"[\W_]", "", cell.casefold()) for cell in header]
    index: dict[str, int] = {}
    for column, aliases in _ALIASES.items():
        for spelling in (column, *aliases):
            if spelling in plain:
                index[column] = plain.index(spelling)
                break
    return index


def _box(cells: dict[str, str], location: str) -> PixelBox:
    edges = four_numbers([cells[edge] for edge in EDGES])
    width, height = cells.get("width"), cells.get("height")
    size = image_size(width, height)
    if size == (edges[2] - edges[0], edges[3] - edges[1]):
        size = None  # of the box, not of the image
    return PixelBox(location, edges, size, cells.get("class") or None)
