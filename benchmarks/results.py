"""The results of a part, for JSON and for the document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Measured", "Part", "Table", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A limit, and the figure that was measured.

    Attributes:
        name: what is measured, with its unit unless it is a ratio.
        measured: the figure.
        limit: the most or the least that it may be.
        at_most: whether the limit is the most; otherwise it is the least.
    """

    name: str
    measured: float
    limit: float
    at_most: bool = True

    @property
    def reached(self) -> bool:
        """Whether the figure is within the limit."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass(frozen=True, slots=True)
class Table:
    """Figures in rows.

    Attributes:
        columns: their titles.
        rows: a cell for each column.
        caption: text above the table.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


@dataclass(slots=True)
class Part:
    """The results of one part.

    Attributes:
        title: its heading in the document.
        description: what was measured, and how, on any machine; Markdown.
        tables: the figures.
        targets: the figures with limits.
        missing: what could not be measured, with the reasons.
        note: what is to be known of the figures from this machine; Markdown.
        figures: further numbers, for JSON alone.
        others: the share of the processor that other work took during the measurement.
    """

    title: str
    description: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    note: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)
    others: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on one machine.

    Attributes:
        machine: processor, memory, system and versions, as text.
        parts: the results, by name.
    """

    machine: Mapping[str, str]
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def targets(self) -> list[Target]:
        """Those of all parts, in their order."""
        return [target for part in self.parts.values() for target in part.targets]
