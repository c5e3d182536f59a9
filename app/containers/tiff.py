"""TIFF: the first picture of the plain kinds, under a directory of its own."""

import struct
from collections.abc import Sequence

from app.containers.base import CUT, MAX_PROFILE, Limits, Source, check_size
from app.errors import UndecodableImage, UnsupportedMediaType

__all__ = ["inspect"]

_MAX_STRIPS = 100_000

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLOURS, _TILE_OFFSETS, _EXTRA, _FORMAT = 317, 320, 324, 338, 339
_SUBFILE, _DNG, _PROFILE = 254, 50706, 34675

_SIZES = {1: 1, 3: 2, 4: 4, 7: 1}
"""Bytes of a BYTE, a SHORT, a LONG and an UNDEFINED: the types of what is read here."""

_COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
# White is zero, black is zero, RGB, palette; CMYK.
_PHOTOMETRICS = (0, 1, 2, 3, 5)


class _Directory:
    """The first directory's entries; each is read only when it is needed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        (start,) = struct.unpack_from(self.order + "I", data, 4)
        (count,) = struct.unpack_from(self.order + "H", data, start)
        self._places = {
            struct.unpack_from(self.order + "H", data, place)[0]: place
            for place in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12)
        }

    def __contains__(self, tag: int) -> bool:
        return tag in self._places

    def raw(self, tag: int, most: int) -> tuple[int, bytes]:
        """Type and bytes of a tag's values; none if it is absent, malformed or longer."""
        place = self._places.get(tag)
        if place is None:
            return 0, b""
        kind, count = struct.unpack_from(self.order + "HI", self.data, place + 2)
        size = _SIZES.get(kind, 0) * count
        if not 0 < size <= most:
            return kind, b""
        start = place + 8
        if size > 4:
            (start,) = struct.unpack_from(self.order + "I", self.data, start)
        value = self.data[start : start + size]
        return kind, value if len(value) == size else b""

    def numbers(self, tag: int) -> tuple[int, ...]:
        """A tag's values; none if it is absent or malformed."""
        kind, value = self.raw(tag, 4 * _MAX_STRIPS)
        letter = {1: "B", 3: "H", 4: "I", 7: "B"}.get(kind, "B")
        return struct.unpack(f"{self.order}{len(value) // _SIZES.get(kind, 1)}{letter}", value)

    def number(self, tag: int, default: int) -> int:
        """A tag's first value."""
        return next(iter(self.numbers(tag)), default)


def inspect(data: bytes, limits: Limits) -> Source:
    """Read a TIFF's first directory.

    Only what describes the pixels is handed to the decoder, in a directory written anew.

    Raises:
        UnsupportedMediaType: it is a raw photo, or of a kind that is not supported.
        TooManyPixels: its size exceeds the limits.
        UndecodableImage: it is cut short.
    """
    try:
        directory = _Directory(data)
        if _DNG in directory or directory.number(_SUBFILE, 0) & 1:
            raise UnsupportedMediaType("The file is a raw photo in TIFF's form.")
        width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
        check_size(width, height, limits)
        samples, bits = directory.number(_SAMPLES, 1), directory.number(_BITS, 1)
        _check_kind(directory, samples, bits)
        tags = _tags(directory, height)
    except struct.error as error:
        raise UndecodableImage(CUT) from error
    turned = directory.number(_ORIENTATION, 1)
    _, profile = directory.raw(_PROFILE, MAX_PROFILE)
    start = len(data) + (len(data) & 1)
    head = data[:4] + struct.pack(directory.order + "I", start)
    return Source(
        format="TIFF",
        width=width,
        height=height,
        parts=[
            *(head, memoryview(data)[8:], b"\0" * (len(data) & 1)),
            _written(tags, directory.order, start),
        ],
        cost=width * height * (1 + samples * max(8, bits) // 8) + len(data),
        peak_bytes=8 * width * height,
        orientation=turned if 1 <= turned <= 8 else 1,
        profile=profile or None,
        bits=bits,
    )


def _check_kind(directory: _Directory, samples: int, bits: int) -> None:
    compression = directory.number(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise UnsupportedMediaType(
            f"The TIFF's compression {compression} is not supported; none, LZW, Deflate and "
            "PackBits are."
        )
    if (
        directory.number(_PHOTOMETRIC, 1) not in _PHOTOMETRICS
        or bits not in (1, 8, 16)
        or set(directory.numbers(_BITS)) - {bits}
        or not 1 <= samples <= 5
        or directory.number(_PLANAR, 1) != 1
        or directory.number(_FORMAT, 1) != 1
        or _TILE_OFFSETS in directory
    ):
        raise UnsupportedMediaType(
            "The TIFF is of a kind that is not supported: it should hold strips of interleaved "
            "samples of 1, 8 or 16 bits."
        )


def _tags(directory: _Directory, height: int) -> dict[int, Sequence[int]]:
    """The tags that describe the pixels, with sound values."""
    offsets, counts = directory.numbers(_OFFSETS), directory.numbers(_COUNTS)
    rows = min(directory.number(_ROWS, height), height)
    strips = -(-height // rows) if rows else 0
    if not strips or len(offsets) != len(counts) or len(offsets) < strips:
        raise UndecodableImage(CUT)
    size = len(directory.data)
    there = 0
    for offset, count in zip(offsets[:strips], counts[:strips], strict=True):
        if offset + count > size:
            break
        there += 1
    if there < strips:
        complete = there * rows
        if directory.number(_COMPRESSION, 1) == 1:  # and of the strip that is cut
            cut = min(rows, height - complete)
            complete += cut * max(0, size - offsets[there]) // max(1, counts[there])
        share = f"{100 * complete // height} %" if complete else "not all"
        raise UndecodableImage(f"The image is cut short: {share} of its rows are there.")
    tags: dict[int, Sequence[int]] = {
        tag: directory.numbers(tag)
        for tag in (
            *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES),
            *(_PREDICTOR, _COLOURS, _EXTRA),
        )
        if tag in directory
    }
    return tags | {_OFFSETS: offsets[:strips], _COUNTS: counts[:strips], _ROWS: (rows,)}


def _written(tags: dict[int, Sequence[int]], order: str, start: int) -> bytes:
    """A directory at `start`, followed by the values that do not fit into it."""
    entries, values = [], b""
    beyond = start + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        kind, letter = (4, "I") if tag in (_OFFSETS, _COUNTS, _WIDTH, _HEIGHT, _ROWS) else (3, "H")
        body = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(body) > 4:
            body, values = (
                struct.pack(order + "I", beyond + len(values)),
                values + body + b"\0" * (len(body) & 1),
            )
        entries.append(struct.pack(order + "HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0"))
    count = struct.pack(order + "H", len(entries))
    return count + b"".join(entries) + b"\0\0\0\0" + values
