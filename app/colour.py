"""Colours as sRGB: ICC profiles are applied, since the model was trained on sRGB.

Perceptual intent: the table that browsers take from a press profile (A2B0). For the matrix profiles
of cameras and displays it is the same as relative colorimetric, which is all that they define.
"""

import io
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image, ImageCms

__all__ = ["Transform", "to_srgb", "transform_from"]

_CACHED = 32
"""Profiles whose transforms are kept: the common ones."""

_CACHED_BYTES = 1 << 16
"""Of the largest profile whose transform is kept. It holds a copy of the profile."""

_ALIKE = 2
"""Levels of 255 by which a profile may differ from sRGB to be taken for it."""

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


@dataclass(frozen=True, slots=True)
class Transform:
    """From a profile's colours to sRGB.

    Attributes:
        mode: of the images that it fits: `L`, `RGB` or `CMYK`.
        lcms: LittleCMS's transform; None where the profile is as good as sRGB.
    """

    mode: str
    lcms: Any


_cache: OrderedDict[bytes, Transform] = OrderedDict()
"""By the profile's digest, the last used last."""


def to_srgb(image: Image.Image, transform: Transform | None) -> Image.Image:
    """Convert an image to sRGB.

    An image that the transform does not fit is taken for sRGB, as it is without a transform.

    Args:
        image: `L`, `RGB` or `CMYK`.
        transform: see `transform_from`.

    Returns:
        `RGB`, or `L` where nothing had to be converted.
    """
    if transform and transform.lcms:
        if transform.mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if transform.mode == image.mode:
            converted = transform.lcms.apply(image)
            assert isinstance(converted, Image.Image)
            return converted
    return image.convert("RGB") if image.mode == "CMYK" else image


def transform_from(profile: bytes | None) -> Transform | None:
    """The transform from an ICC profile to sRGB; None if there is none that LittleCMS accepts."""
    mode = _MODES.get(profile[16:20]) if profile else None
    if profile is None or mode is None:
        return None
    if len(profile) > _CACHED_BYTES:
        return _built(profile, mode)
    key = sha256(profile).digest()
    transform = _cache.pop(key, None) or _built(profile, mode)
    if transform:
        _cache[key] = transform
        while len(_cache) > _CACHED:
            _cache.popitem(last=False)
    return transform


def _built(profile: bytes, mode: str) -> Transform | None:
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
            return Transform(mode, None)
    return Transform(mode, transform)


def _probe(mode: str) -> Image.Image:
    """Colours that fill the space evenly: 9 levels of each channel, or all greys."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    channels = len(mode)
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * channels, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(1, -1, channels), mode)
