"""GIF: the first picture alone."""

import struct

from app.containers.base import CUT, Budget, Limits, Source, check_size
from app.errors import UndecodableImage

__all__ = ["inspect"]

_EXTENSION, _PICTURE, _CONTROL = 0x21, 0x2C, 0xF9


def inspect(data: bytes, limits: Limits) -> Source:
    """Read a GIF's structure up to the end of its first picture.

    Raises:
        TooManyPixels: its screen or its first picture exceeds the limits.
        UndecodableImage: it has no picture.
    """
    if len(data) < 13:
        raise UndecodableImage(CUT)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    check_size(width, height, limits)
    view = memoryview(data)
    place = 13 + _table(flags)
    parts: list[bytes | memoryview] = [view[:place]]
    budget = Budget(len(data), "blocks")  # most have 255 bytes
    while place + 2 <= len(data):
        start = place
        budget.spend()
        if data[place] == _EXTENSION:
            place = _skip_blocks(data, place + 2, budget)
            if data[start + 1] == _CONTROL and place - start == 8:
                parts[1:] = [view[start:place]]  # transparency; the last before the picture counts
        elif data[place] == _PICTURE and place + 10 <= len(data):
            x, y, across, down, flags = struct.unpack_from("<HHHHB", data, place + 1)
            check_size(across, down, limits)
            check_size(max(width, x + across), max(height, y + down), limits)
            place = _skip_blocks(data, place + 11 + _table(flags), budget)
            parts += [view[start:place], b";"]
            pixels = max(width, x + across) * max(height, y + down)
            return Source(
                format="GIF",
                width=max(width, x + across),
                height=max(height, y + down),
                parts=parts,
                cost=2 * pixels,
                peak_bytes=8 * pixels,
                progressive=bool(flags & 0x40),
            )
        else:
            break
    raise UndecodableImage("The GIF has no picture.")


def _table(flags: int) -> int:
    """Bytes of the colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, place: int, budget: Budget) -> int:
    """The place behind a sequence of blocks."""
    while place < len(data) and data[place]:
        budget.spend()
        place += 1 + data[place]
    return min(place + 1, len(data))
