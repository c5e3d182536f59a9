"""Made pictures with the statistics of photos: detail at every scale, JPEGs of the usual size."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["jpeg", "pixels"]

_OCTAVES = ((2, 60.0), (4, 40.0), (16, 25.0), (64, 12.0), (256, 6.0), (1024, 5.0), (4096, 5.0))
"""Cells across, and the standard deviation of their values."""


def pixels(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture, uint8 RGB `[height, width, 3]`. The same seed gives the same picture."""
    random = np.random.default_rng(seed)
    total = np.full((height, width, 3), 120.0, np.float32)
    for cells, strength in _OCTAVES:
        across, down = min(cells, width), min(max(1, cells * height // width), height)
        for channel in range(3):
            noise = random.normal(0, strength, (down, across)).astype(np.float32)
            layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(layer)
    return np.clip(total, 0, 255).astype(np.uint8)


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    """The picture of `pixels` as a JPEG of quality 90."""
    target = io.BytesIO()
    Image.fromarray(pixels(width, height, seed)).save(target, "JPEG", quality=90)
    return target.getvalue()
