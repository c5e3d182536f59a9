"""What an image file says of itself, and what decoding it would cost, before a pixel is decoded.

Costs are in pixels of a baseline JPEG decoded in full, about 10 ns of one core.
"""

from dataclasses import dataclass

from app.containers import jpeg, png, webp
from app.containers.base import Limits, Source
from app.errors import TooManyPixels, UnsupportedMediaType

__all__ = ["FORMATS", "Header", "Limits", "inspect", "read"]

FORMATS = ("JPEG", "PNG", "WebP")
"""The supported image formats."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself.

    Attributes:
        format: one of `FORMATS`.
        width: pixels across, as stored: EXIF's orientation is not applied.
        height: pixels down, as stored.
        pixels: the estimated cost of decoding, in pixels of an ordinary JPEG; see above.
        peak_bytes: the estimated most memory that decoding takes, without the file's bytes.
        scans: of a JPEG; else 1.
        progressive: a progressive JPEG or an interlaced PNG or GIF.
        lossless: a lossless WebP.
        frames: pictures in the file; the first is decoded.
    """

    format: str
    width: int
    height: int
    pixels: int
    peak_bytes: int
    scans: int
    progressive: bool
    lossless: bool
    frames: int


_DEFAULT = Limits()


def read(data: bytes, limits: Limits = _DEFAULT) -> Header:
    """Read an image's header and estimate what decoding would cost.

    It decodes nothing, takes microseconds for an ordinary photo, and at most a fraction of a second
    for any 20 MB.

    Raises:
        UnsupportedMediaType: none of `FORMATS`; the message names the format where it is known.
        TooManyPixels: its size, its scans or the cost of decoding exceed the limits.
        UndecodableImage: one of `FORMATS`, but cut short or damaged so that it has no picture.
    """
    source = inspect(data, limits)
    return Header(
        source.format,
        source.width,
        source.height,
        source.cost,
        source.peak_bytes,
        source.scans,
        source.progressive,
        source.lossless,
        source.frames,
    )


def inspect(data: bytes, limits: Limits = _DEFAULT) -> Source:
    """What `read` reads, and the parts of the file that a decoder needs."""
    if data.startswith(b"\xff\xd8\xff"):
        source = jpeg.inspect(data, limits)
    elif data.startswith(png.SIGNATURE):
        source = png.inspect(data, limits)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        source = webp.inspect(data, limits)
    else:
        raise UnsupportedMediaType(f"The image is none of {', '.join(FORMATS)}.")
    if source.cost > limits.cost:
        raise TooManyPixels(
            f"The {source.format} would take as much work as {source.cost} ordinary pixels; the "
            f"limit is {limits.cost}."
        )
    return source
