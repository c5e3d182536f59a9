"""A table of boxes: a CSV file with a row for each box."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from app import images
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

_OF_THE_IMAGE = ("image", "img", "im", "photo", "picture", "original", "orig", "full", "frame", "")
"""What names of columns with the photo's width and height begin with; without, they may be those of
the box."""

_HINTS = ("class", "width", "height")
"""Columns that a table need not have."""

_ALIASES = {
    "filename": (
        *("file", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "imageid"),
        *("img", "imgname", "imgpath", "photo"),
    ),
    "xmin": ("x1", "left"),
    "ymin": ("y1", "top"),
    "xmax": ("x2", "right"),
    "ymax": ("y2", "bottom"),
    "class": (
        *("classname", "classlabel", "label", "labelname", "category", "categoryname", "breed"),
        *("breedname", "species", "object", "objectname", "objectclass", "objectlabel", "name"),
        *("kind", "tag", "type", "objecttype", "classid", "labelid", "categoryid", "breedid"),
        *("classindex", "cls", "clsid"),
    ),
    "width": tuple(f"{of}{side}" for of in _OF_THE_IMAGE for side in ("width", "w")),
    "height": tuple(f"{of}{side}" for of in _OF_THE_IMAGE for side in ("height", "h")),
}
"""Other names of the columns that are read, as Roboflow, Kaggle, Open Images and others have them;
in lower case, without punctuation (`x_min` is `xmin`). The first that a table has is read."""

_SUGGESTIVE = re.compile(
    "breed|categ|class|kind|label|object|species|^(?!.*box).*(width|height|size)"
)
"""Names of columns that may hold a class or the photo's size, too."""

_NEARLY_ALL = 0.95
"""Share of the rows whose width and height are those of the box, where the columns are."""


class _Row(NamedTuple):
    """A row with a box, or without one.

    Attributes:
        location: in messages.
        cells: by the names of the columns.
        edges: xmin, ymin, xmax, ymax in pixels; None where all are empty.
        size: of the image, if that is what the columns hold.
    """

    location: str
    cells: dict[str, str]
    edges: images.Box | None
    size: tuple[int, int] | None


def read(path: Path, name: str, skipped: Skipped) -> Iterator[Annotation]:
    """One annotation for each row, with its one box; without a box where all edges are empty.

    Args:
        path: of the file: UTF-8, its columns separated by commas, semicolons, tabs or bars.
        name: of the file in messages.
        skipped: collects rows that are malformed, and columns that are not read though they may
            hold a class or a size.

    Raises:
        DataError: the file is not CSV, or a column is missing.
    """
    try:
        # utf-8-sig: a spreadsheet's export may begin with a byte order mark.
        text = path.read_bytes().decode("utf-8-sig")
        header, lines = _parse(text)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not CSV: {error}.") from error
    index = _column_index(header)
    missing = [column for column in COLUMNS if column not in index]
    if missing:
        raise DataError(f"The first line of {path} lacks the columns {', '.join(missing)}.")
    for place, column in enumerate(header):
        if place not in index.values() and _is_suggestive(_plain(column)):
            skipped.add("column", f"{name}: {column.strip()}", "not read as class or size")
    rows = []
    for line, values in lines:
        location = f"{name}:{line}"
        try:
            if len(values) < len(header) or any(values[len(header) :]):
                raise ValueError(f"it has {len(values)} columns, the first line {len(header)}")
            cells = {column: values[place].strip() for column, place in index.items()}
            rows.append(_row(cells, location))
        except (ValueError, OverflowError) as error:
            skipped.add("annotation", location, error)
    sizes_of_boxes, only_number = _hold_sizes_of_boxes(rows), _only_number(rows)
    for row in rows:
        boxes = []
        if row.edges is not None:
            size = None if sizes_of_boxes else row.size
            class_name = None if only_number else row.cells.get("class") or None
            boxes = [PixelBox(row.location, row.edges, size, class_name)]
        yield Annotation(row.cells["filename"], False, boxes)


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


def _plain(column: str) -> str:
    """A column's name in lower case, without punctuation."""
    return re.sub(r"[\W_]", "", column.casefold())


def _is_suggestive(plain: str) -> bool:
    """Whether a column's plain name suggests a class or the size of the photo."""
    names = {alias for column in _HINTS for alias in (column, *_ALIASES[column])}
    return plain in names or _SUGGESTIVE.search(plain) is not None


def _column_index(header: list[str]) -> dict[str, int]:
    """Where the columns are that are read, by the names of `COLUMNS` and `_ALIASES`."""
    plain = [_plain(column) for column in header]
    index: dict[str, int] = {}
    for column, aliases in _ALIASES.items():
        for spelling in aliases if column in aliases else (column, *aliases):
            if spelling in plain:
                index[column] = plain.index(spelling)
                break
    return index


def _row(cells: dict[str, str], location: str) -> _Row:
    if not any(cells[edge] for edge in EDGES):
        return _Row(location, cells, None, None)
    edges = four_numbers([cells[edge] for edge in EDGES])
    return _Row(location, cells, edges, image_size(cells.get("width"), cells.get("height")))


def _hold_sizes_of_boxes(rows: Sequence[_Row]) -> bool:
    """Whether the columns of width and height hold the sizes of the boxes, not of the images.

    They do if they match the boxes within a pixel in nearly all rows, and in one whose box does not
    start at the photo's corner: a box around the whole photo has the photo's size.
    """
    matches, stated, off_corner = 0, 0, False
    for row in rows:
        if row.edges is None or row.size is None:
            continue
        xmin, ymin, xmax, ymax = row.edges
        width, height = float(row.cells["width"]), float(row.cells["height"])
        stated += 1
        if abs(xmax - xmin - width) <= 1 and abs(ymax - ymin - height) <= 1:
            matches += 1
            off_corner |= max(xmin, ymin) > 1  # some tools count pixels from 1
    return off_corner and matches >= _NEARLY_ALL * stated


def _only_number(rows: Sequence[_Row]) -> bool:
    """Whether all boxes bear the same number instead of a class's name: it tells none apart."""
    names = {row.cells.get("class", "") for row in rows if row.edges is not None} - {""}
    return len(names) == 1 and min(names).isdecimal()
