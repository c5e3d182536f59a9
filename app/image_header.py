"""What an image file says of itself, and what decoding it would cost, before a pixel is decoded.

Costs are in pixels of an ordinary baseline JPEG that is decoded in full: 10 ns of one core. They
are sums over pixels, bytes of the file and, in a JPEG, samples that its scans cover; the weights
stand in each format's module. They were fitted to Pillow 13's times for 12-megapixel pictures,
flat and noisy, on a Xeon core; most estimates are within a third of the time, and those further
off are too high. What a reduced scale saves is not counted.
"""

from dataclasses import dataclass, replace

from app.containers import bmp, gif, isobmff, jpeg, png, signatures, tiff, webp
from app.containers.base import LEAST_SIDE, Limits, Source
from app.errors import TooCostly, UnsupportedMediaType

__all__ = ["FORMATS", "Header", "Limits", "inspect", "read"]

FORMATS = ("JPEG", "PNG", "WebP", "HEIC", "AVIF", "GIF", "BMP", "TIFF")
"""The supported image formats."""

_BANDS = 16_000_000
"""Bytes for the bands of rows in which pixels are converted."""

_DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself.

    Attributes:
        format: one of `FORMATS`.
        width: pixels across, as stored: its orientation is not applied.
        height: pixels down, as stored.
        cost: the estimated cost of decoding, in pixels of an ordinary JPEG; see above.
        peak_bytes: the estimated most memory that decoding takes, the given bytes left out.
        scans: of a JPEG; else 1.
        progressive: a progressive JPEG, or an interlaced PNG or GIF.
        lossless: a lossless WebP.
        frames: pictures in the file, where it says so; the first is decoded.
    """

    format: str
    width: int
    height: int
    cost: int
    peak_bytes: int
    scans: int
    progressive: bool
    lossless: bool
    frames: int


def read(data: bytes, limits: Limits = _DEFAULT) -> Header:
    """Read an image's header and estimate what decoding would cost.

    Nothing is decoded. It takes microseconds for an ordinary photo, and at most a fraction of a
    second for any 20 MB.

    Raises:
        UnsupportedMediaType: none of `FORMATS`; the message names the format where it is known.
        TooManyPixels: its size exceeds the limits.
        TooCostly: its scans or the cost of decoding exceed the limits.
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
    """What `read` reads, with the parts of the file that a decoder needs; it raises the same."""
    source = _source(data, limits)
    if source.format != "JPEG":
        source = replace(source, peak_bytes=_peak(source, len(data)))
    if source.cost > limits.cost:
        raise TooCostly(
            f"The {source.format} would take as much work as {source.cost // 1_000_000} megapixels "
            f"of an ordinary JPEG; the limit is {limits.cost // 1_000_000}."
        )
    return source


def _peak(source: Source, size: int) -> int:
    """Bytes: the decoder's or, afterwards, its pixels (4) and the result (3); and the parts."""
    pixels = source.width * source.height
    reduced = pixels // 4 if min(source.width, source.height) >= 2 * LEAST_SIDE else pixels
    return max(source.peak_bytes, 4 * pixels + 3 * reduced) + _BANDS + size


def _source(data: bytes, limits: Limits) -> Source:
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg.inspect(data, limits)
    if data.startswith(png.SIGNATURE):
        return png.inspect(data, limits)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp.inspect(data, limits)
    if data[4:8] == b"ftyp" and data[8:12] in isobmff.BRANDS:
        return isobmff.inspect(data, limits)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return gif.inspect(data, limits)
    name = signatures.name_of(data)
    if name is None and data[:4] in (b"II*\0", b"MM\0*"):
        return tiff.inspect(data, limits)
    if name is None and data[:2] == b"BM":
        return bmp.inspect(data, limits)
    raise UnsupportedMediaType(
        f"The file is {name or 'of an unknown format'}; {', '.join(FORMATS[:-1])} and "
        f"{FORMATS[-1]} are supported."
    )
