"""Photos, boxes and annotations that cannot be used: each is counted, none is dropped silently."""

import sys
from collections import Counter

__all__ = ["Skipped"]

SHOWN = 10
"""How many reasons of a kind are listed; the items of further ones are only counted."""

EXAMPLES = 3
"""How many items are named for one reason; further ones are only counted."""


class Skipped:
    """The items of a data set that are left out, with the reasons."""

    def __init__(self) -> None:
        """Start empty."""
        self._items: dict[tuple[str, str], list[str]] = {}  # names by kind and reason, in order

    def add(self, kind: str, name: str, reason: object) -> None:
        """Leave an item out.

        Args:
            kind: `photo`, `box`, `annotation`, `file` or `folder`; items are counted by it.
            name: where the item is: a path, perhaps with a line or an index.
            reason: text, or an exception with that text. Items that share it share a line.
        """
        self._items.setdefault((kind, str(reason)), []).append(name)

    def report(self) -> None:
        """Print the items to standard error; print nothing if there are none."""
        if not self._items:
            return
        lines: Counter[str] = Counter()
        hidden: Counter[str] = Counter()
        total: Counter[str] = Counter()
        print("Left out:", file=sys.stderr)
        for (kind, reason), names in self._items.items():
            total[kind] += len(names)
            lines[kind] += 1
            if lines[kind] > SHOWN:
                hidden[kind] += len(names)
                continue
            more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
            print(f"  {', '.join(names[:EXAMPLES])}{more}: {reason}", file=sys.stderr)
        if hidden:
            print(f"  and more: {_listed(hidden)}", file=sys.stderr)
        print(f"Left out in total: {_listed(total)}.", file=sys.stderr, flush=True)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
