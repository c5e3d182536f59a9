"""PNG: its chunks, and the file without those that do not change its pixels."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from app.containers.base import CUT, MAX_PROFILE, Budget, Limits, Source, check_size, orientation
from app.errors import UndecodableImage

__all__ = ["SIGNATURE", "inspect", "share_of_rows", "unpack_profile"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PEAK = 5
"""Bytes a pixel: the decoder's 4, and rows."""

_PEAK_TWICE = 11
"""Bytes a pixel where the low bytes of 16 take a second decode: two pictures and the result."""

_WINDOW = 1 << 20
"""Bytes that are inflated at a time."""

_END = b"\0\0\0\0IEND\xaeB`\x82"

# Samples of a pixel by colour type, and the bits that each may have.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

# Adam7: first column, first row, step across, step down of each pass.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def inspect(data: bytes, limits: Limits) -> Source:
    """Read a PNG's structure.

    Ancillary chunks are left out of `parts`, so that none of them can matter: text is never
    unpacked, and wrong checksums of ancillary chunks do not count.

    Raises:
        TooManyPixels: its size exceeds the limits.
        UndecodableImage: its header is wrong, or it has no pixel data.
    """
    structure = _Structure(data, _header(data, limits))
    for chunk in _chunks(data):
        if not structure.take(*chunk):
            break
    return structure.source()


class _Header(NamedTuple):
    """The chunk IHDR; `depth` is bits per sample, `colour` a key of `_SAMPLES`."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool


class _Structure:
    """What the chunks of a PNG say, up to the end of the pixel data."""

    def __init__(self, data: bytes, header: _Header) -> None:
        self._data, self._view, self._header = data, memoryview(data), header
        self._parts: list[bytes | memoryview] = [self._view[:33]]
        self._exif: memoryview | None = None
        self._profile: memoryview | None = None
        self._opacity: memoryview | None = None
        self._transparent: tuple[int, ...] | None = None
        self._frames = 1
        # Of the chunks of pixel data: where the first begins, where the last does, where it ends.
        self._first, self._start_of_last, self._last = 0, 0, 0

    def take(self, kind: bytes, start: int, end: int) -> bool:
        """Note a chunk; returns whether those behind it matter."""
        if kind != b"IDAT":
            self._note(kind, start, end)
            return True
        if self._first and self._last != start:
            return False  # not consecutive: the decoder would stop here too
        self._first, self._start_of_last, self._last = self._first or start, start, end
        return True

    def _note(self, kind: bytes, start: int, end: int) -> None:
        """Note a palette, or the ancillary chunks that matter."""
        body = self._view[start + 8 : end - 4]
        if kind == b"PLTE" and not self._first:
            self._parts.append(self._view[start:end])
        elif kind == b"tRNS" and not self._first and self._opacity is None:
            self._opacity = body
            if _intact(self._data, start, end):
                self._note_opacity(body)
        elif kind == b"iCCP" and self._profile is None:
            self._profile = body
        elif kind == b"eXIf" and self._exif is None:
            self._exif = body
        elif kind == b"acTL" and len(body) >= 4:
            self._frames = int.from_bytes(body[:4], "big") or 1

    def _note_opacity(self, body: memoryview) -> None:
        """Note a palette's opacities, or the one transparent colour."""
        colour = self._header.colour
        if colour == 3:
            self._parts.append(_chunk(b"tRNS", bytes(body[:256])))
        elif colour in (0, 2) and len(body) >= 2 * _SAMPLES[colour]:
            self._transparent = struct.unpack_from(f">{_SAMPLES[colour]}H", body)

    def source(self) -> Source:
        """The picture, once all chunks that matter are taken."""
        if not self._first:
            raise UndecodableImage(CUT)
        header, transparent = self._header, self._transparent
        parts = [*self._parts, self._view[self._first : self._last]]
        # Behind a chunk that is cut short, the decoder would take an end for pixel data.
        length = struct.unpack_from(">I", self._data, self._start_of_last)[0]
        ended = length + 12 == self._last - self._start_of_last
        if ended:
            parts.append(_END)
        twice = transparent and header.depth == 16
        return Source(
            format="PNG",
            width=header.width,
            height=header.height,
            parts=parts,
            cost=_cost(header, self._last - self._first, transparent),
            peak_bytes=(_PEAK_TWICE if twice else _PEAK) * header.width * header.height,
            orientation=1 if self._exif is None else orientation(self._exif),
            packed_profile=self._profile,
            progressive=header.interlaced,
            frames=self._frames,
            ended=ended,
            transparent=transparent,
            bits=header.depth,
        )


def _cost(header: _Header, size: int, transparent: tuple[int, ...] | None) -> int:
    """5 ns a byte of the rows and 26 ns a byte of the file; see `image_header`."""
    samples = _SAMPLES[header.colour]
    work = header.width * header.height * samples * max(8, header.depth) // 16 + 26 * size // 10
    # Of 16 bits a colour, Pillow keeps 8: the others take a second decode.
    return 2 * work if transparent and header.depth == 16 and samples == 3 else work


def _header(data: bytes, limits: Limits) -> _Header:
    if len(data) < 33:
        raise UndecodableImage(CUT)
    if data[8:16] != b"\0\0\0\x0dIHDR" or not _intact(data, 8, 33):
        raise UndecodableImage("The PNG's header chunk is damaged.")
    width, height, depth, colour, method, filters, interlaced = struct.unpack_from(
        ">IIBBBBB", data, 16
    )
    check_size(width, height, limits)
    if depth not in _DEPTHS.get(colour, ()) or method or filters or interlaced > 1:
        raise UndecodableImage("The PNG's header names a kind of PNG that does not exist.")
    return _Header(width, height, depth, colour, bool(interlaced))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, its place and its end, after the header and up to IEND."""
    place, budget = 33, Budget(len(data), "chunks")  # libpng's have 8 kB
    while True:
        budget.spend()
        kind = data[place + 4 : place + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield kind, place, min(end, len(data))
        place = end


def _intact(data: bytes, start: int, end: int) -> bool:
    """Whether a chunk's checksum is right."""
    return zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def unpack_profile(body: bytes | memoryview) -> bytes | None:
    """The ICC profile of an iCCP chunk; None if it is damaged or larger than `MAX_PROFILE`.

    Args:
        body: a name of up to 79 bytes, 0, 0 for deflate, and the compressed profile.
    """
    name = bytes(body[:80]).find(b"\0")
    if name < 0 or bytes(body[name + 1 : name + 2]) != b"\0":
        return None
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(body[name + 2 :], MAX_PROFILE)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def share_of_rows(data: bytes) -> float | None:
    """How much of its pixel data a PNG has, though they do not end as they should.

    Args:
        data: a PNG with `inspect`'s parts.

    Returns:
        0 to 1, in bytes before compression, which in a PNG without interlacing are rows; None where
        the data are damaged, not cut short.
    """
    width, height, depth, colour, interlaced = _header(data, Limits(pixels=1 << 62, side=1 << 31))
    bits = _SAMPLES[colour] * depth
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for x, y, across, down in passes:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)
    inflater, size = zlib.decompressobj(), 0
    try:
        for kind, start, end in _chunks(data):
            waiting = data[start + 8 : end - 4] if kind == b"IDAT" else b""
            while waiting and not inflater.eof:
                size += len(inflater.decompress(waiting, _WINDOW))
                waiting = inflater.unconsumed_tail
    except zlib.error:
        return None
    return min(1.0, size / expected)
