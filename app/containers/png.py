"""PNG: its chunks, and the file without those that do not change its pixels."""

import struct
import zlib
from collections.abc import Iterator

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
    view = memoryview(data)
    width, height, depth, colour, interlaced = _header(data, limits)
    parts: list[bytes | memoryview] = [view[:33]]
    exif: memoryview | None = None
    profile: memoryview | None = None
    opacity: memoryview | None = None
    transparent, frames = None, 1
    first, start_of_last, last = 0, 0, 0  # of the chunks of pixel data
    for kind, start, end in _chunks(data):
        body = view[start + 8 : end - 4]
        if kind == b"IDAT":
            if first and last != start:
                break  # not consecutive: the decoder would stop here too
            first, start_of_last, last = first or start, start, end
        elif kind == b"PLTE" and not first:
            parts.append(view[start:end])
        elif kind == b"tRNS" and not first and opacity is None:
            opacity = body
            if not _intact(data, start, end):
                continue
            if colour == 3:
                parts.append(_chunk(b"tRNS", bytes(body[:256])))
            elif len(body) >= 2 * _SAMPLES[colour] and colour in (0, 2):
                transparent = struct.unpack_from(f">{_SAMPLES[colour]}H", body)
        elif kind == b"iCCP" and profile is None:
            profile = body
        elif kind == b"eXIf" and exif is None:
            exif = body
        elif kind == b"acTL" and len(body) >= 4:
            frames = int.from_bytes(body[:4], "big") or 1
    if not first:
        raise UndecodableImage(CUT)
    parts.append(view[first:last])
    # Behind a chunk that is cut short, the decoder would take an end for pixel data.
    ended = struct.unpack_from(">I", data, start_of_last)[0] + 12 == last - start_of_last
    if ended:
        parts.append(_END)
    pixels = width * height
    return Source(
        format="PNG",
        width=width,
        height=height,
        parts=parts,
        cost=_cost(width * height, _SAMPLES[colour], depth, last - first, transparent),
        peak_bytes=(_PEAK_TWICE if transparent and depth == 16 else _PEAK) * pixels,
        orientation=1 if exif is None else orientation(exif),
        packed_profile=profile,
        progressive=bool(interlaced),
        frames=frames,
        ended=ended,
        transparent=transparent,
        bits=depth,
    )


def _cost(
    pixels: int, samples: int, depth: int, size: int, transparent: tuple[int, ...] | None
) -> int:
    """5 ns a byte of the rows and 26 ns a byte of the file; see `image_header`."""
    work = pixels * samples * max(8, depth) // 16 + 26 * size // 10
    # Of 16 bits a colour, Pillow keeps 8: the others take a second decode.
    return 2 * work if transparent and depth == 16 and samples == 3 else work


def _header(data: bytes, limits: Limits) -> tuple[int, int, int, int, int]:
    """Width, height, bit depth, colour type, and whether it is interlaced."""
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
    return width, height, depth, colour, interlaced


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
