"""BMP: uncompressed pixels."""

import struct

from app.containers.base import CUT, Limits, Source, check_size
from app.errors import UndecodableImage, UnsupportedMediaType

__all__ = ["inspect"]

_COMPRESSIONS = {1: "RLE8", 2: "RLE4", 4: "JPEG", 5: "PNG"}


def inspect(data: bytes, limits: Limits) -> Source:
    """Read a BMP's header.

    Raises:
        TooManyPixels: its size exceeds the limits.
        UnsupportedMediaType: it is compressed (run lengths are decoded too slowly).
        UndecodableImage: it is cut short.
    """
    if len(data) < 30:
        raise UndecodableImage(CUT)
    offset, size = struct.unpack_from("<II", data, 10)
    compression = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    elif 40 <= size <= 124 and len(data) >= 54:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        height = abs(height)  # negative where the first row is the top one
    else:
        raise UndecodableImage(CUT)
    check_size(width, height, limits)
    if compression in _COMPRESSIONS:
        raise UnsupportedMediaType(
            f"The BMP is compressed ({_COMPRESSIONS[compression]}); only uncompressed ones are "
            "supported."
        )
    row = (width * bits + 31) // 32 * 4
    rows = max(0, len(data) - offset) // row if row else 0
    if rows < height:
        raise UndecodableImage(
            f"The image is cut short: {100 * rows // height} % of its rows are there."
        )
    return Source(
        format="BMP",
        width=width,
        height=height,
        parts=[data],
        cost=width * height,
        peak_bytes=7 * width * height,
    )
