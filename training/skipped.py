"""What a data set was found to hold and could not use: named, counted, never silently dropped."""

import sys
from collections import Counter

__all__ = ["Skipped"]

SHOWN = 10
"""How many of a kind are named before the rest is only counted."""


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
        self._counts[what] += 1
        if self._counts[what] <= SHOWN:
            self._lines.append(f"{name}: {why}")

    def report(self) -> None:
        """Tell standard error, if there is anything to tell."""
        if not self._lines:
            return
        more = {what: count - SHOWN for what, count in self._counts.items() if count > SHOWN}
        lines = [
            "Left out:",
            *(f"  {line}" for line in self._lines),
            *([f"  and more: {_told(more)}"] if more else []),
            f"Left out in all: {_told(self._counts)}.",
        ]
        print("\n".join(lines), file=sys.stderr, flush=True)


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
