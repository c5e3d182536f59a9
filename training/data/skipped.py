"""Photos, boxes and annotations that cannot be used: each is counted, none is dropped silently."""

import sys
from collections import Counter

__all__ = ["Skipped"]

SHOWN = 10
"""How many items of a kind are listed; further ones are only counted."""


class Skipped:
    """The items of a data set that are left out, with the reasons."""

    def __init__(self) -> None:
        """Start empty."""
        self._lines: list[str] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, name: str, reason: object) -> None:
        """Leave an item out.

        Args:
            kind: `photo`, `box`, `annotation` or `folder`; items are counted by it.
            name: where the item is: a path, perhaps with a line or an index.
            reason: text, or an exception with that text.
        """
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            self._lines.append(f"{name}: {reason}")

    def report(self) -> None:
        """Print the items to standard error; print nothing if there are none."""
        if not self._lines:
            return
        hidden = {kind: count - SHOWN for kind, count in self._counts.items() if count > SHOWN}
        lines = [
            "Left out:",
            *(f"  {line}" for line in self._lines),
            *([f"  and more: {_listed(hidden)}"] if hidden else []),
            f"Left out in total: {_listed(self._counts)}.",
        ]
        print("\n".join(lines), file=sys.stderr, flush=True)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
