"""What a file of boxes says of one photo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from app import images

__all__ = ["EDGES", "Annotation", "PixelBox", "four_numbers", "image_size"]

EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A box in pixels, not checked yet.

    Attributes:
        location: its file, perhaps with a line or an index, for messages.
        edges: xmin, ymin, xmax, ymax in pixels.
        image_size: width and height in pixels of the image that the file describes; None where the
            file does not say.
        class_name: what the box shows; None where the file does not say.
    """

    location: str
    edges: images.Box
    image_size: tuple[int, int] | None
    class_name: str | None = None


class Annotation(NamedTuple):
    """The boxes of one photo in a file.

    Attributes:
        name: the photo as the file names it: its path, or any last part of that.
        is_stem: whether `name` lacks the suffix.
        boxes: may be empty.
    """

    name: str
    is_stem: bool
    boxes: list[PixelBox]


def four_numbers(values: Sequence[Any]) -> images.Box:
    """`values` as floats.

    Raises:
        ValueError: not four, or one is missing or not a number. JSON's true and false are none.
    """
    if len(values) != 4 or any(value is None or isinstance(value, bool) for value in values):
        raise ValueError("a box needs four numbers")
    try:
        xmin, ymin, xmax, ymax = map(float, values)
    except TypeError as error:
        raise ValueError("a box needs four numbers") from error
    return xmin, ymin, xmax, ymax


def image_size(width: Any, height: Any) -> tuple[int, int] | None:
    """The size of an image as a file states it, in pixels; None where one is missing, empty or 0.

    Raises:
        ValueError, OverflowError: one is not a number, or not finite.
    """
    size = int(float(width or 0)), int(float(height or 0))
    return size if all(size) else None
