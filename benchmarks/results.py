"""What a part has found, ready for JSON and for the document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Part", "Table", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A promise, and what was measured.

    Attributes:
        name: what is measured, with its unit unless it is a ratio.
        measured: the figure.
        limit: that it is held against.
        at_most: whether it may not exceed the limit; else it may not fall short of it.
    """

    name: str
    measured: float
    limit: float
    at_most: bool = True

    @property
    def reached(self) -> bool:
        """Whether the promise is kept."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass(frozen=True, slots=True)
class Table:
    """Figures in rows.

    Attributes:
        columns: their titles.
        rows: a cell for each column.
        caption: what stands above it.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


@dataclass(slots=True)
class Part:
    """One part's findings.

    Attributes:
        title: its heading in the document.
        description: what was measured, and how; Markdown.
        tables: the figures.
        targets: what had been promised.
        missing: what could not be measured, each with its reason.
        figures: the numbers behind it all, for JSON.
        others: the share of the processor that other work on the machine took meanwhile.
    """

    title: str
    description: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    figures: Mapping[str, object] = field(default_factory=dict)
    others: float = 0.0
