"""The picture: a heatmap in colour over the photo, with boxes, as a file."""

import struct
from collections.abc import Sequence
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from app.schemas import Colormap

__all__ = [
    "COLORMAPS",
    "JPEG",
    "MAX_SIDES",
    "MEDIA_TYPES",
    "draw_boxes",
    "encode",
    "levels",
    "render",
    "row_width",
    "side_by_side",
]

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

_LEVELS = np.arange(256, dtype=np.uint8)[:, None]


def _table(name: str) -> Pixels:
    colours = cv2.applyColorMap(_LEVELS, getattr(cv2, f"COLORMAP_{name.upper()}"))
    return cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


COLORMAPS = {name: _table(name) for name in get_args(Colormap)}
"""The colours of levels 0 to 255: uint8 RGB `[256, 1, 3]`."""

PNG, JPEG = "image/png", "image/jpeg"

_LOSSY: dict[str, tuple[str, list[int]]] = {
    "image/webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 85]),
    JPEG: (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
}

MEDIA_TYPES = (PNG, *_LOSSY)
"""What a picture can be encoded as; the first is what JSON carries."""

MAX_SIDES = {"image/webp": 16_383, JPEG: 65_500}
"""Pixels of a picture's longer side, where its format or encoder has a limit within reach."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _FILTER_UP = 0, 2, 2

_LEVEL = 1
"""Of ISA-L's 0 to 3: the higher ones gain nothing on a photo."""

_WINDOW_BITS = 9
"""Logarithm of the bytes that are searched for repetitions, and the least there may be. In a photo
they are chance, and far ones cost more than they save."""

_REFERENCE = (255, 255, 255)
_OWN = (64, 255, 64)
_OUTLINE = (0, 0, 0)


def render(
    pixels: Pixels, values: npt.NDArray[np.float32] | None, *, colormap: str, alpha: float
) -> Pixels:
    """Blend a heatmap into a photo: `(1 - alpha) * photo + alpha * colour`.

    Args:
        pixels: the photo, uint8 RGB `[h, w, 3]`.
        values: the heatmap, 0..1, `[h, w]`; None leaves the photo as it is.
        colormap: a key of `COLORMAPS`.
        alpha: 0 (the photo alone) to 1 (the colours alone).

    Returns:
        uint8 RGB `[h, w, 3]`, a new array.
    """
    if values is None:
        return pixels.copy()
    colours = cv2.applyColorMap(levels(values), COLORMAPS[colormap])
    return cv2.addWeighted(pixels, 1 - alpha, colours, alpha, 0)  # type: ignore[return-value]


def levels(values: npt.NDArray[np.float32]) -> Pixels:
    """A heatmap in 8 bits, `round(255 * values)`.

    Args:
        values: 0..1, `[h, w]`; what lies outside is clipped.

    Returns:
        uint8 `[h, w]`.
    """
    # OpenCV's conversions saturate, where NumPy's would wrap.
    return cv2.multiply(values, 255.0, dtype=cv2.CV_8U)  # type: ignore[call-overload, no-any-return]


def draw_boxes(pixels: Pixels, *, reference: Sequence[Box], own: Box | None) -> None:
    """Draw boxes into `pixels`: the request's in white, the explanation's own in green."""
    thick = max(1, round(max(pixels.shape[:2]) / 250))
    boxes = [(box, _REFERENCE) for box in reference] + ([(own, _OWN)] if own else [])
    for box, colour in boxes:
        start, end = _corners(box, pixels.shape[1], pixels.shape[0])
        cv2.rectangle(pixels, start, end, _OUTLINE, thick + 2)
        cv2.rectangle(pixels, start, end, colour, thick)


def side_by_side(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one size in a row with white between; one alone stays as it is.

    Args:
        pictures: uint8, RGB `[h, w, 3]` or greyscale `[h, w]`.
    """
    if len(pictures) == 1:
        return pictures[0]
    height, width, *channels = pictures[0].shape
    gap = np.full((height, _gap(width), *channels), 255, np.uint8)
    row = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(row[1:], axis=1)


def row_width(count: int, width: int) -> int:
    """Pixels across of `count` pictures of one width, `side_by_side`."""
    return count * width + (count - 1) * _gap(width)


def _gap(width: int) -> int:
    return max(2, width // 64)


def _corners(box: Box, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last pixel inside a box."""
    xmin, ymin, xmax, ymax = box
    left, top = min(int(xmin), width - 1), min(int(ymin), height - 1)
    right, bottom = min(round(xmax), width) - 1, min(round(ymax), height) - 1
    return (left, top), (max(left, right), max(top, bottom))


def encode(pixels: Pixels, media_type: str = PNG) -> bytes:
    """The picture as a file.

    Args:
        pixels: uint8, RGB `[h, w, 3]` or greyscale `[h, w]`.
        media_type: one of `MEDIA_TYPES`; all but PNG lose a little. WebP has no greyscale.
    """
    if media_type == PNG:
        return _png(pixels)
    extension, options = _LOSSY[media_type]
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    _, encoded = cv2.imencode(extension, pixels, options)
    return encoded.tobytes()


def _png(pixels: Pixels) -> bytes:
    """A PNG (W3C, third edition), compressed by ISA-L.

    OpenCV and Pillow take three times as long for a file of the same size.
    """
    height, width = pixels.shape[:2]
    colour_type = _RGB if pixels.ndim == 3 else _GREY
    samples = pixels.reshape(height, -1)
    # Each row is its filter's number and the differences to the row above, modulo 256.
    rows = np.empty((height, 1 + samples.shape[1]), np.uint8)
    rows[:, 0] = _FILTER_UP
    rows[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    data = isal_zlib.compress(rows, _LEVEL, _WINDOW_BITS)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")
    return b"".join((_SIGNATURE, *chunks))


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)))
