"""What a file says of its picture, and the limits that hold for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import TooManyPixels, UndecodableImage

__all__ = [
    "CUT",
    "LEAST_SIDE",
    "MAX_PROFILE",
    "Budget",
    "Limits",
    "Source",
    "check_size",
    "orientation",
    "reduction",
]

MAX_PROFILE = 4 << 20
"""Bytes of the largest ICC profile that is used; those of presses have up to 3 MB."""

CUT = "The image is cut short: its header is not complete."

LEAST_SIDE = 1024
"""Pixels of the shorter side that a picture is not reduced below for the service.

`settings.MAX_OVERLAY_SIZE`; decoders do without pydantic, and so start faster.
"""

_ELEMENTS, _BYTES_EACH = 2_000, 64
"""Elements that any file may have, and the bytes that pay for another."""

_MAX_ENTRIES = 1_000
"""Entries of an EXIF directory; cameras write a few dozen."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a picture may cost.

    Attributes:
        pixels: width x height.
        side: pixels of the longer side. Wider rows than this cost memory and time out of
            proportion to their pixels.
        scans: of a JPEG. Encoders write up to 12, optimisers up to about 30.
        cost: of decoding; see `image_header`.
    """

    pixels: int = 50_000_000
    side: int = 65_535
    scans: int = 100
    cost: int = 500_000_000


class Budget:
    """How many elements (segments, chunks, blocks, boxes) of a file are looked at.

    Each takes about two microseconds, however few bytes it has. A file that consists of the
    smallest ones must not cost more than another.
    """

    __slots__ = ("elements", "left", "limit")

    def __init__(self, size: int, elements: str) -> None:
        """A budget for a file of `size` bytes; `elements` is their name in the message."""
        self.limit = self.left = _ELEMENTS + size // _BYTES_EACH
        self.elements = elements

    def spend(self, count: int = 1) -> None:
        """Count elements before they are looked at.

        Raises:
            UndecodableImage: there are too many.
        """
        self.left -= count
        if self.left < 0:
            raise UndecodableImage(
                f"The image has more than {self.limit} {self.elements}, too many for its size."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture in its file, before it is decoded.

    Attributes:
        format: `JPEG`, `PNG`, `WebP`, `AVIF`, `HEIC`, `GIF`, `BMP` or `TIFF`.
        width: pixels across, as stored.
        height: pixels down, as stored.
        parts: joined, a file of that format without metadata: what the decoder is given.
        cost: of decoding; see `image_header`.
        peak_bytes: the most memory that the decoder takes; see `image_header.Header`.
        orientation: EXIF's, 1 to 8, that the decoder does not apply itself.
        profile: ICC profile, if there is one of at most `MAX_PROFILE` bytes.
        packed_profile: a PNG's, as it is stored: see `png.unpack_profile`.
        scans: 1 but in a JPEG of several.
        progressive: a progressive JPEG or an interlaced PNG, GIF.
        lossless: a lossless WebP.
        frames: pictures in the file, as far as it says; the first is decoded.
        ended: whether the end of the picture's data is marked.
        complete: False where, though its end is not marked, scans are known to be missing.
        transparent: samples of the one colour that is transparent, as PNG's tRNS has them.
        bits: per sample.
    """

    format: str
    width: int
    height: int
    parts: Sequence[bytes | memoryview]
    cost: int
    peak_bytes: int
    orientation: int = 1
    profile: bytes | None = None
    packed_profile: bytes | memoryview | None = None
    scans: int = 1
    progressive: bool = False
    lossless: bool = False
    frames: int = 1
    ended: bool = True
    complete: bool = True
    transparent: tuple[int, ...] | None = None
    bits: int = 8


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture by its size.

    Raises:
        UndecodableImage: it has no pixels.
        TooManyPixels: it has too many, or a side is too long.
    """
    if width < 1 or height < 1:
        raise UndecodableImage(f"The image has no pixels: it is {width} x {height}.")
    if width * height > limits.pixels:
        raise TooManyPixels(
            f"The image has {width} x {height} pixels; the limit is {limits.pixels} in all."
        )
    if max(width, height) > limits.side:
        raise TooManyPixels(
            f"The image has {width} x {height} pixels; the limit is {limits.side} on a side."
        )


def reduction(width: int, height: int, side: int) -> int:
    """The largest of 8, 4, 2 and 1 that leaves the shorter side at or over `side`."""
    scale = min(width, height) // side
    return next(factor for factor in (8, 4, 2, 1) if factor <= max(1, scale))


def orientation(exif: bytes | memoryview) -> int:
    """EXIF's orientation, whatever else is wrong with the block.

    Only tag 0x0112 of the first directory is read; no other entry has to make sense.

    Args:
        exif: the TIFF structure, from `II` or `MM` on.

    Returns:
        1 to 8; 1 where there is none that means something.
    """
    order = {b"II": "little", b"MM": "big"}.get(bytes(exif[:2]))
    if order is None:
        return 1

    def number(start: int, size: int) -> int:
        return int.from_bytes(exif[start : start + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    if start + 2 > len(exif):
        return 1
    entries = min(number(start, 2), (len(exif) - start - 2) // 12, _MAX_ENTRIES)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if number(entry, 2) == 0x0112:
            # SHORT as the standard has it, or BYTE or LONG as some writers do: one value each.
            size = {1: 1, 3: 2, 4: 4}.get(number(entry + 2, 2), 0)
            value = number(entry + 8, size)
            return value if 1 <= value <= 8 else 1
    return 1
