"""What some tests need besides the checkout: without it they are skipped, and where CI is set fail.

A test that is skipped unnoticed checks nothing, so that continuous integration has to have it all.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from app.errors import EngineUnavailable
from app.settings import PROJECT

__all__ = ["SHARED", "absent", "precision", "shared", "tool"]

SHARED = (PROJECT / "../shared").resolve()
"""Photos and data sets that lie beside the checkout and are never committed."""


def absent(need: str) -> NoReturn:
    """Skip the test; fail instead where `CI` is set."""
    reason = f"needs {need}"
    if "CI" in os.environ:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def shared(path: str) -> Path:
    """The file or directory of that path in `SHARED`."""
    place = SHARED / path
    if not place.exists():
        absent(f"../shared/{path}")
    return place


def tool(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    absent(f"one of {', '.join(names)}")


@contextmanager
def precision() -> Iterator[None]:
    """Skip where this CPU lacks the engine's precision, in CI too: no installation could bring it.

    An engine that is not installed is an error.
    """
    try:
        yield
    except EngineUnavailable as error:
        if "this CPU has no" not in str(error):
            raise
        pytest.skip(str(error))
