"""Photos: bytes to size-capped, upright RGB, to model input; and the geometry of pixels.

Training's validation, calibration, evaluation and the service all decode and squash here, so that
what is measured is what is served.
"""

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile

from app import colour, image_header
from app.containers import png
from app.containers.base import LEAST_SIDE, Source, reduction
from app.errors import (
    BoxOutsideImage,
    RequestError,
    TooCostly,
    TooManyPixels,
    UndecodableImage,
    UnsupportedMediaType,
)

__all__ = [
    "FORMATS",
    "SIDE",
    "SUFFIXES",
    "Box",
    "Photo",
    "TooCostly",
    "TooManyPixels",
    "UndecodableImage",
    "UnsupportedMediaType",
    "clip_box",
    "decode",
    "enough_for",
    "fit",
    "fitted",
    "scale_box",
    "scale_point",
    "squash",
]

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels; the far edges are exclusive."""

FORMATS = image_header.FORMATS
"""The supported image formats."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif", ".hif", ".avif"),
)
"""The suffixes of files in these formats, in lower case."""

SIDE = 336
"""Pixels of the shorter side that a decoded photo keeps at least, where it has them."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# EXIF orientations that exchange width and height, and then mirror columns or rows.
_ON_THEIR_SIDE = (5, 6, 7, 8)
_COLUMNS_MIRRORED = (2, 3, 6, 7)
_ROWS_MIRRORED = (3, 4, 7, 8)

_PILLOW_NAMES = {name: name for name in FORMATS} | {"WebP": "WEBP", "HEIC": "HEIF"}

_BAND = 1 << 20
"""Pixels of a band of rows that is converted at a time."""

# What is appended to a JPEG without an end: codes, and restart markers for those that need them.
_CODES = bytes(range(1, 251)) * 2
_NOISE = _CODES + b"".join(b"\xff" + bytes([0xD0 + n % 8]) + _CODES for n in range(16))

# Our own limit, checked against the header before any pixel is decoded, replaces Pillow's.
Image.MAX_IMAGE_PIXELS = None

# One thread a photo: photos are decoded side by side. Thumbnails and depth are not looked at.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pillow_heif.register_heif_opener(
    thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
)

# At debug level, Pillow logs what EXIF says: dates, places, names.
logging.getLogger("PIL").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright photo, perhaps decoded at a reduced scale.

    Attributes:
        pixels: uint8 RGB `[h, w, 3]`, as decoded.
        width: pixels across of the upright original.
        height: pixels down of the upright original.
    """

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, *, max_pixels: int = 50_000_000, side: int = SIDE) -> Photo:
    """Decode an image to upright RGB in sRGB.

    A JPEG is decoded at the smallest DCT scale (1/2, 1/4, 1/8) that leaves its shorter side at or
    over `side`: a quarter of the time for a 12-megapixel photo. Other formats have to be decoded in
    full. They are then reduced in the same way, but to no less than 1,024 pixels, so that no second
    decode is ever needed for a picture up to that size.
    Transparency is laid over white; of an animation, the first frame is taken.

    Args:
        data: the encoded image.
        max_pixels: the most pixels (width x height, as the header has it) that are decoded.
        side: pixels; see above, and `enough_for`.

    Raises:
        UnsupportedMediaType: none of `FORMATS`.
        TooManyPixels: more than `max_pixels`.
        TooCostly: more work than `image_header` allows.
        UndecodableImage: one of `FORMATS` by its first bytes, but broken.
    """
    source = image_header.inspect(data, image_header.Limits(pixels=max_pixels))
    # Pillow's decoders raise whatever a broken file leads them to: OSError, SyntaxError,
    # ValueError, struct.error, zlib.error and more. Each means the same to the client.
    try:
        return _upright(source, side)
    except RequestError:
        raise
    except Exception as error:
        raise _undecodable(error) from error


def _upright(source: Source, side: int) -> Photo:
    with _open(source, source.parts) as image:
        _check_size(image, source)
        width, height = image.size
        scale = 1
        if source.format == "JPEG":
            image.draft("RGB", (side, side))  # before the pixels are loaded
            _load(image, source)
        else:
            _load(image, source)
            _check_size(image, source)
            width, height = image.size
            scale = reduction(width, height, max(side, LEAST_SIDE))
        if not source.ended and source.format == "JPEG":
            _check_all_rows(source, image)
        orientation = source.orientation
        if source.format == "AVIF":
            # Pillow writes the file's own rotation (irot, imir) as EXIF: there is no other.
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        pixels = _in_rgb(image, source, scale)
    image.close()  # frees its pixels before others are made
    if orientation in _ON_THEIR_SIDE:
        width, height = height, width
        pixels = pixels.swapaxes(0, 1)
    if orientation in _COLUMNS_MIRRORED:
        pixels = pixels[:, ::-1]
    if orientation in _ROWS_MIRRORED:
        pixels = pixels[::-1]
    return Photo(np.ascontiguousarray(pixels), width, height)


def _check_size(image: Image.Image, source: Source) -> None:
    """Raise ValueError if the decoder's size is not the one that was checked and admitted.

    A HEIC is turned already, and may be cropped.
    """
    width, height = image.size
    if source.format == "HEIC":
        fits = width * height <= source.width * source.height
    else:
        fits = image.size == (source.width, source.height)
    if not fits:
        raise ValueError(f"{width} x {height} pixels, not {source.width} x {source.height}")


def _open(source: Source, parts: Sequence[bytes | memoryview]) -> Image.Image:
    data = b"".join(parts)
    image = Image.open(io.BytesIO(data), formats=(_PILLOW_NAMES[source.format],))
    if source.format == "JPEG":
        # In one piece: libjpeg decodes the ends of pieces, which have 64 KiB else, a slower way.
        assert isinstance(image, ImageFile.ImageFile)
        image.decodermaxblock = len(data)
    return image


def _load(image: Image.Image, source: Source) -> None:
    """Decode the pixels; a PNG's may lack their end, but no row."""
    try:
        image.load()
    except OSError:
        if source.format != "PNG":
            raise
        share = png.share_of_rows(b"".join(source.parts))
        if share is None:
            raise
        if share < 1:
            raise _cut_short(share) from None
        assert isinstance(image, ImageFile.ImageFile)
        image.tile = []  # it is all there, and nothing is left to do
        image.load()


def _check_all_rows(source: Source, image: Image.Image) -> None:
    """Refuse a JPEG without its end marker that lacks more than that.

    The decoder shows grey for what is missing, and does not say so. Something else is appended, and
    the photo decoded again: the rows before the first that differs are there.

    Raises:
        UndecodableImage: rows or scans are missing.
    """
    if source.complete:
        with _open(source, [*source.parts[:-1], _NOISE, source.parts[-1]]) as other:
            if image.size != other.size:
                other.draft("RGB", image.size)
            other.load()
            differs = np.asarray(image) != np.asarray(other)
        rows = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
        if not rows.size:
            return
        if not source.progressive:
            raise _cut_short(rows[0] / image.height)
    raise UndecodableImage("The image is cut short: not all scans of the JPEG are there.")


def _in_rgb(image: Image.Image, source: Source, scale: int) -> Pixels:
    """RGB in sRGB without transparency, reduced by `scale`, whatever the mode.

    Images are converted in bands of rows, so that only the decoder and the result hold all pixels.

    Returns:
        uint8 `[ceil(height / scale), ceil(width / scale), 3]`.
    """
    profile = source.profile or image.info.get("icc_profile")
    if source.packed_profile is not None:
        profile = png.unpack_profile(source.packed_profile)
    transform = colour.transform_from(profile)
    low_bytes = None
    if source.transparent and source.bits == 16 and image.mode == "RGB":
        low_bytes = _low_bytes(source)
    rows = max(1, _BAND // (image.width * scale)) * scale
    if rows >= image.height and not source.transparent:  # as most photos: without another copy
        return np.asarray(_flatten(image, None, transform, scale))
    pixels = np.empty((-(-image.height // scale), -(-image.width // scale), 3), np.uint8)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        whole = box[3] - top == image.height
        band = image if whole else image.crop(box)
        alpha = None
        if source.transparent:
            low = low_bytes.crop(box) if low_bytes else None
            alpha = _opacity(band, low, source.transparent, source.bits)
        first, last = top // scale, -(-box[3] // scale)
        pixels[first:last] = np.asarray(_flatten(band, alpha, transform, scale))
    return pixels


def _flatten(
    image: Image.Image,
    alpha: Image.Image | None,
    transform: colour.Transform | None,
    scale: int,
) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode in ("LA", "La", "RGBA", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if alpha:
        image = colour.to_srgb(image, transform)
        image = Image.composite(image, Image.new(image.mode, image.size, "white"), alpha)
        transform = None
    if scale > 1:
        image = image.reduce(scale)
    image = colour.to_srgb(image, transform)
    return image if image.mode == "RGB" else image.convert("RGB")


def _opacity(
    image: Image.Image, low: Image.Image | None, transparent: tuple[int, ...], bits: int
) -> Image.Image:
    """A mask for PNG's one transparent colour: 0 where the samples are equal to it, else 255.

    Args:
        image: the samples, scaled to 8 bits where they have fewer; of colours with 16 bits, the
            high bytes.
        low: of colours with 16 bits, the low bytes.
        transparent: samples of `bits` bits.
        bits: per sample.
    """
    samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    colour_ = np.array(transparent, np.uint16) & ((1 << bits) - 1)
    if bits < 8:
        colour_ = colour_ * (255 // ((1 << bits) - 1))
    if low is not None:
        equal = (samples == colour_ >> 8) & (np.asarray(low) == (colour_ & 255))
    else:
        equal = samples == colour_
    if equal.ndim == 3:
        equal = equal.all(axis=-1)
    return Image.fromarray(np.where(equal, 0, 255).astype(np.uint8))


def _low_bytes(source: Source) -> Image.Image:
    """The low bytes of a PNG with 16 bits a sample, of which Pillow gives the high ones."""
    image = _open(source, source.parts)
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


def _cut_short(share: float) -> UndecodableImage:
    return UndecodableImage(
        f"The image is cut short: {math.floor(100 * share)} % of its rows are there."
    )


def _undecodable(error: Exception) -> UndecodableImage:
    log.info("image does not decode: %r", error)
    return UndecodableImage("The image is damaged or cut short: it does not decode.")


def enough_for(size: int) -> int:
    """The `side` of `decode` for a photo to be squashed to `size`: 45 % more.

    An eighth of the commonest photos of 12 megapixels, 4032 x 3024 and 4000 x 3000, is enough for
    256 px.
    """
    return size * 29 // 20


def squash(pixels: Pixels, size: int, resample: str = "bilinear") -> Pixels:
    """Resize to the model's square input without regard to aspect, so that nothing is cropped.

    Args:
        pixels: uint8 RGB `[h, w, 3]`.
        size: the model's input size, pixels.
        resample: `bilinear` or `bicubic`, each with antialiasing.

    Returns:
        uint8 RGB `[size, size, 3]`; `pixels` itself where it has that size.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    image = Image.fromarray(pixels).resize((size, size), _FILTERS[resample])
    return np.asarray(image)


def fit(photo: Photo, side: int) -> Pixels:
    """The photo with its aspect kept and its longer side at `side`, or at its own where less.

    Args:
        photo: perhaps decoded at a reduced scale, even one that leaves a little less than `side`.
        side: pixels.

    Returns:
        uint8 RGB `[h', w', 3]`.
    """
    width, height = fitted(photo.width, photo.height, side)  # of the original, not of `pixels`
    if photo.pixels.shape[:2] == (height, width):
        return photo.pixels
    image = Image.fromarray(photo.pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """The size, width and height, of a photo with its longer side at `side`, or at its own."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def scale_box(box: Box, source: tuple[int, int], target: tuple[int, int]) -> Box:
    """Carry a box from an image of `source` (width, height) pixels to one of `target`."""
    x, y = target[0] / source[0], target[1] / source[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def scale_point(
    point: tuple[float, float], source: tuple[int, int], target: tuple[int, int]
) -> tuple[float, float]:
    """Carry a point (x, y) from an image of `source` (width, height) pixels to one of `target`."""
    return point[0] * target[0] / source[0], point[1] * target[1] / source[1]


def clip_box(box: Box, width: int, height: int) -> Box:
    """Cut a box to an image of `width` x `height` pixels.

    Raises:
        BoxOutsideImage: the box and the image share no area.
    """
    xmin, ymin = max(box[0], 0.0), max(box[1], 0.0)
    xmax, ymax = min(box[2], float(width)), min(box[3], float(height))
    if not (xmin < xmax and ymin < ymax):
        raise BoxOutsideImage(
            f"Box {','.join(f'{edge:g}' for edge in box)} lies outside the image of "
            f"{width} x {height} pixels."
        )
    return xmin, ymin, xmax, ymax
