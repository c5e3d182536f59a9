"""Explanation boxes as COCO results, which pycocotools' `loadRes` reads."""

import json
from collections.abc import Iterable

from app.batch.output import Output
from app.batch.rows import Row

__all__ = ["NAME", "result", "write"]

NAME = "coco_results.json"


def result(row: Row) -> dict[str, object] | None:
    """A photo's box as a result; None where there is no box.

    Returns:
        `image_id`; `category_id`, the index of the class that is explained; `bbox`: x, y, width
        and height in pixels of the upright photo; `score`, the class's probability.
    """
    if row.explanation is None or row.explanation.box is None or row.target is None:
        return None
    xmin, ymin, xmax, ymax = row.explanation.box
    return {
        "image_id": row.image_id,
        "category_id": row.target.class_index,
        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
        "score": row.target.probability,
    }


def write(output: Output) -> None:
    """Write the results of a finished run, if they are not there."""
    if not (output.folder / NAME).exists():
        with output.written(NAME) as file:
            file.writelines(_lines(output.rows()))


def _lines(rows: Iterable[Row]) -> Iterable[bytes]:
    separator = b"[\n"
    for row in rows:
        if (box := result(row)) is not None:
            yield separator + json.dumps(box).encode()
            separator = b",\n"
    yield b"[]\n" if separator == b"[\n" else b"\n]\n"
