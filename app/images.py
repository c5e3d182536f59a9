"""Photos: bytes to size-capped, upright RGB, to model input; and the geometry of pixels.

Training's validation, calibration, evaluation and the service all decode and squash here, so that
what is measured is what is served.
"""

import io
import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from app.errors import BoxOutsideImage, TooManyPixels, UndecodableImage, UnsupportedMediaType

__all__ = [
    "FORMATS",
    "SIDE",
    "Box",
    "Photo",
    "TooManyPixels",
    "UndecodableImage",
    "UnsupportedMediaType",
    "clip_box",
    "decode",
    "enough_for",
    "fit",
    "scale_box",
    "scale_point",
    "squash",
]

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels; the far edges are exclusive."""

FORMATS = ("JPEG", "PNG", "WEBP")
"""The supported image formats, by Pillow's names."""

SIDE = 336
"""Pixels of the shorter side that a decoded photo keeps at least, where it has them."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# EXIF orientations that exchange width and height.
_ON_THEIR_SIDE = (5, 6, 7, 8)

# Our own limit, checked against the header before any pixel is decoded, replaces Pillow's.
Image.MAX_IMAGE_PIXELS = None

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
    """Decode an image to upright RGB.

    A JPEG is decoded at the smallest DCT scale (1/2, 1/4, 1/8) that leaves its shorter side at or
    over `side`: a quarter of the time for a 12-megapixel photo.
    Transparency is laid over white; of an animation, the first frame is taken.

    Args:
        data: the encoded image.
        max_pixels: the most pixels (width x height, as the header tells) that are decoded.
        side: pixels; see above, and `enough_for`.

    Raises:
        UnsupportedMediaType: none of `FORMATS`.
        TooManyPixels: more than `max_pixels`.
        UndecodableImage: one of `FORMATS` by its first bytes, but broken.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        if _looks_allowed(data):
            raise _undecodable(error) from error
        raise UnsupportedMediaType(f"The image is none of {', '.join(FORMATS)}.") from error
    with image:
        if image.width * image.height > max_pixels:
            raise TooManyPixels(
                f"The image has {image.width} x {image.height} pixels; the limit is {max_pixels} "
                "in all."
            )
        # Pillow's decoders raise whatever a broken file leads them to: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error and more. Each means the same to the client.
        try:
            return _upright(image, side)
        except Exception as error:
            raise _undecodable(error) from error


def _upright(image: Image.Image, side: int) -> Photo:
    width, height = image.size
    if width == 0 or height == 0:
        raise ValueError("no pixels")
    # The order matters: `draft` works before the pixels are loaded, and PNG's EXIF may follow them.
    image.draft("RGB", (side, side))
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_THEIR_SIDE:
        width, height = height, width
    ImageOps.exif_transpose(image, in_place=True)
    upright = _flatten(image)
    return Photo(np.asarray(upright), width, height)


def _flatten(image: Image.Image) -> Image.Image:
    """RGB without transparency, whatever the mode."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # In integers: as float64, a photo at the pixel limit would take more than a gigabyte.
        deep = np.asarray(image)
        image = Image.fromarray(np.clip(deep // 257, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _looks_allowed(data: bytes) -> bool:
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (
        data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    )


def _undecodable(error: Exception) -> UndecodableImage:
    log.info("image does not decode: %r", error)
    return UndecodableImage("The image is damaged or cut short: it does not decode.")


def enough_for(size: int) -> int:
    """The `side` of `decode` for a photo to be squashed to `size`: half as much again."""
    return size * 3 // 2


def squash(pixels: Pixels, size: int, resample: str = "bilinear") -> Pixels:
    """Resize to the model's square input without regard to aspect, so that nothing is cropped.

    Args:
        pixels: uint8 RGB `[h, w, 3]`.
        size: the model's input size, pixels.
        resample: `bilinear` or `bicubic`, each with antialiasing.

    Returns:
        uint8 RGB `[size, size, 3]`.
    """
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
    scale = min(1.0, side / max(photo.width, photo.height))  # of the original, not of `pixels`
    width, height = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    if photo.pixels.shape[:2] == (height, width):
        return photo.pixels
    image = Image.fromarray(photo.pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


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
