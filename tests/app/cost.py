"""What a call costs the processor, in a unit that does not depend on the machine.

Tests bound no cost in seconds: a machine may be slow, busy, or stand still for a while.
"""

import gc
import io
import time
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from tests.app.encoded import encode, smooth

__all__ = ["least_s", "megapixels"]

REPEATS = 5


def least_s(call: Callable[[], object], *, enough: float = 0.0) -> float:
    """Processor seconds of this thread in the quickest of some calls.

    Other threads and processes, garbage collection and a machine that stands still do not count.

    Args:
        call: what is measured.
        enough: no further call is made once one has taken so little.
    """
    least = float("inf")
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(REPEATS):
            begun = time.thread_time()
            call()
            least = min(least, time.thread_time() - begun)
            if least <= enough:
                break
    finally:
        if collecting:
            gc.enable()
    return least


@cache
def _photo() -> bytes:
    """A JPEG of one megapixel with as much detail as photos have."""
    noise = np.random.default_rng(13).normal(0, 16, (800, 1250, 3))
    grained = np.clip(np.asarray(smooth(1250, 800)) + noise, 0, 255).astype(np.uint8)
    return encode(grained, "JPEG", quality=90)


def megapixels(call: Callable[[], object], *, enough: float = 0.0) -> float:
    """What a call costs, in megapixels of an ordinary JPEG that is decoded just before.

    It is the unit in which the service estimates and limits costs (`app.image_header`).
    """

    def decode() -> None:
        with Image.open(io.BytesIO(_photo())) as image:
            image.load()

    unit_s = least_s(decode)
    return least_s(call, enough=enough * unit_s) / unit_s
