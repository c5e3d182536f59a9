"""Progress on standard error: a bar on a terminal, a line every 30 s in a log."""

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["INTERVAL", "bar"]

INTERVAL = 30.0
"""Seconds between two lines, at least, where standard error is no terminal."""


class _Lines(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar that writes a line at each refresh, and none before the first step."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # The file swallows tqdm's carriage returns; `miniters` keeps its monitor from refreshing.
        timing = {"delay": 1e-9, "mininterval": INTERVAL, "miniters": 1}
        super().__init__(*args, **{**options, **timing}, file=io.StringIO())

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line; tqdm calls this at most every `INTERVAL` seconds, and at the end."""
        print(str(self).strip(), file=sys.stderr, flush=True)
        return True


def bar(
    title: str | None = None,
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    unit: str = "photo",
    **options: Any,
) -> "tqdm[Any]":
    """The progress of one stage, on standard error.

    On a terminal it is a bar. Elsewhere, as in a log, it is a line at most every `INTERVAL`
    seconds, and one at the end.

    Args:
        title: of the stage.
        iterable: whose items are passed on; None where the caller counts them by `update`.
        total: number of steps; default: the length of `iterable`, if it has one.
        unit: name of a step.
        options: more options of tqdm.
    """
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(iterable, desc=title, total=total, unit=unit, mininterval=1.0, **options)
