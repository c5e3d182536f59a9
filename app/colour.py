"""Colours as sRGB: ICC profiles are applied, since the model was trained on sRGB.

Perceptual intent: the table that browsers take from a press profile (A2B0). For the matrix profiles
of cameras and displays it is the same as relative colorimetric, which is all that they define.
"""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_CACHED = 32
"""Transforms that are kept: those of the common profiles."""

_ALIKE = 2
"""Levels of 255 by which a profile may differ from sRGB to be taken for it."""

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB.

    A profile that does not fit the image's colour space or that LittleCMS refuses is ignored: the
    image is then taken for sRGB, as it is without a profile.

    Args:
        image: `L`, `RGB` or `CMYK`.
        profile: ICC profile.

    Returns:
        `RGB`, or `L` where nothing had to be converted.
    """
    space = _MODES.get(profile[16:20]) if profile else None
    if profile is None or space is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    if space == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if space == image.mode and (transform := _transform(profile, space)):
        converted = transform.apply(image)
        assert isinstance(converted, Image.Image)
        return converted
    return image.convert("RGB") if image.mode == "CMYK" else image


@lru_cache(maxsize=_CACHED)
def _transform(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB; None if it is unusable or changes nothing."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.getOpenProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
        probe = _probe(mode)
        result = np.asarray(transform.apply(probe), np.int16)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode != "CMYK":
        change = np.abs(result - np.asarray(probe.convert("RGB"), np.int16))
        if change.max() <= _ALIKE:
            return None
    return transform


def _probe(mode: str) -> Image.Image:
    """Colours that fill the space evenly: 9 levels of each channel, or all greys."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    channels = len(mode)
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * channels, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(1, -1, channels), mode)
