"""Image files for tests: pictures as Pillow writes them, and PNG and JPEG piece by piece."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["END", "NOISE", "encode", "ihdr", "oriented", "png", "segment", "smooth"]

ORIENTATION = 0x0112

END = (b"IEND", b"")
NOISE = np.random.default_rng(7).integers(0, 256, (64, 48, 3)).astype(np.uint8)


def smooth(width: int, height: int) -> Image.Image:
    """A picture of soft colours, as photos have them."""
    coarse = np.random.default_rng(11).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(picture: Image.Image | npt.NDArray[Any], kind: str, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def png(*chunks: tuple[bytes, bytes], spoilt: bytes = b"") -> bytes:
    """A PNG of these chunks; those of the kind `spoilt` have a wrong checksum."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body]
        parts.append(struct.pack(">I", zlib.crc32(kind + body) ^ (kind == spoilt)))
    return b"".join(parts)


def ihdr(
    width: int, height: int, *, depth: int = 8, colour: int = 2, interlaced: int = 0
) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
