"""What a data set was found to hold and could not use: named, counted, never silently dropped."""

import sys
from collections import Counter

__all__ = ["Skipped"]

SHOWN = 10
"""How many are named before the rest is only counted."""


class Skipped:
    """What is left out, and why."""

    def __init__(self) -> None:
        """Nothing, so far."""
        self._lines: list[str] = []
        self._counts: Counter[str] = Counter()

    def add(self, what: str, name: str, why: object) -> None:
        """Leave one out.

        Args:
            what: its kind, for the count: `photo`, `box`, `annotation` or `folder`.
            name: where it is.
            why: in words.
        """
        self._lines.append(f"{name}: {why}")
        self._counts[what] += 1

    def report(self) -> None:
        """Tell standard error, if there is anything to tell."""
        if not self._lines:
            return
        more = len(self._lines) - SHOWN
        counts = ", ".join(f"{what} {count}" for what, count in sorted(self._counts.items()))
        lines = [
            "Left out:",
            *(f"  {line}" for line in self._lines[:SHOWN]),
            *([f"  and {more} more"] if more > 0 else []),
            f"Left out in all: {counts}.",
        ]
        print("\n".join(lines), file=sys.stderr, flush=True)
