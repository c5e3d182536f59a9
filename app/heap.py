"""glibc's heap: what is freed goes back to the system. Elsewhere, this does nothing."""

import ctypes
import sys
from collections.abc import Callable

__all__ = ["bound", "trim"]

_MALLOC = {-1: 16 << 20, -3: 4 << 20}
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, bytes."""


def bound() -> None:
    """Have large blocks given back when they are freed.

    By itself glibc raises its threshold to 32 MB with use, and bodies and answers of that size
    leave holes in the heap: several hundred megabytes after a burst.
    """
    if (mallopt := _libc("mallopt")) is not None:
        for option, size in _MALLOC.items():
            mallopt(option, size)


def trim() -> None:
    """Give back what is free now, such as what compiling a model has left: some 50 megabytes."""
    if (malloc_trim := _libc("malloc_trim")) is not None:
        malloc_trim(0)


def _libc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where there is none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
