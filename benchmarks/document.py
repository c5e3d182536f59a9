"""The results as a Markdown document, and as JSON to render it from again."""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.results import Measured, Part, Table, Target

__all__ = ["markdown", "read", "render", "render_part", "write"]

_MACHINES: TypeAdapter[dict[str, Measured]] = TypeAdapter(dict[str, Measured])

QUIET = 0.05
"""The share of the processor that other work may take without being reported."""

_HEAD = """# Performance

For people who plan capacity or compare packages: how fast is the service, and compared with what?

Pick the column of your kind of CPU. `make bench` measures everything on this page anew on the
machine at hand, and leaves what was measured on other kinds, perhaps with an earlier version, as it
is. Compare ratios, not milliseconds: within each part, the alternatives ran in turn, in one run, on
one machine. Milliseconds are medians, with quartiles in brackets, and differ between machines.
"""

_TARGETS = """## Targets

Each figure with its target on that CPU, which depends on its instructions; a target that was missed
is in bold. No figure: not measured there.
"""


def read(path: Path) -> dict[str, Measured]:
    """What was measured before, by kind of CPU; what was measured last comes last."""
    return _MACHINES.validate_json(path.read_bytes()) if path.exists() else {}


def write(path: Path, machines: dict[str, Measured]) -> None:
    """Write JSON to `path`, and the document to the same path with `.md`.

    Args:
        path: the JSON's.
        machines: by kind of CPU; the one that was measured last comes last.
    """
    contents = {kind: asdict(measured) for kind, measured in machines.items()}
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(render(machines), encoding="utf-8")


def render(machines: dict[str, Measured]) -> str:
    """The document, in Markdown."""
    names = dict.fromkeys(name for measured in machines.values() for name in measured.parts)
    pieces = [_HEAD, markdown(_machines(machines)), _TARGETS, markdown(_targets(machines))]
    for name in names:
        measured_on = {
            kind: measured.parts[name]
            for kind, measured in machines.items()
            if name in measured.parts
        }
        # The machine that was measured last comes last: its words are the newest.
        *_, newest = measured_on.values()
        pieces.append(f"## {newest.title}\n\n{newest.description}\n")
        for kind, part in measured_on.items():
            pieces += [f"### {newest.title}: {kind}\n", _figures(part)]
    return "\n".join(pieces)


def render_part(part: Part) -> str:
    """One part, measured on one machine, in Markdown."""
    return f"{part.title}\n\n{part.description}\n\n{_figures(part)}"


def _figures(part: Part) -> str:
    """The tables of a part, and what is to be known of them."""
    pieces = []
    if part.note:
        pieces.append(f"{part.note}\n")
    if part.others > QUIET:
        pieces.append(
            f"**Disturbed**: other work took {part.others:.0%} of the processor meanwhile.\n"
        )
    for table in part.tables:
        pieces += [f"{table.caption}\n"] if table.caption else []
        pieces.append(markdown(table))
    if part.missing:
        pieces.append("Not measured:\n\n" + "".join(f"- {reason}\n" for reason in part.missing))
    return "\n".join(pieces)


def _machines(machines: dict[str, Measured]) -> Table:
    fields = dict.fromkeys(name for measured in machines.values() for name in measured.machine)
    rows = [
        (name, *(measured.machine.get(name, "") for measured in machines.values()))
        for name in fields
    ]
    return Table(("machine", *machines), rows)


def _targets(machines: dict[str, Measured]) -> Table:
    """A line a target, a column a kind of CPU."""
    by_kind = {kind: {t.name: t for t in measured.targets} for kind, measured in machines.items()}
    names = dict.fromkeys(name for targets in by_kind.values() for name in targets)
    rows = [
        (name, *(_cell(targets[name]) if name in targets else "" for targets in by_kind.values()))
        for name in names
    ]
    return Table(("", *machines), rows)


def _cell(target: Target) -> str:
    """The figure and its limit; in bold where it misses that."""
    limit = f"{'at most' if target.at_most else 'at least'} {target.limit:g}"
    text = f"{_measured(target)} ({limit})"
    return text if target.reached else f"**{text}**"


def _measured(target: Target) -> str:
    """To three digits, or to as many as tell it from the limit where it misses that."""
    digits = 3
    while not target.reached and f"{target.measured:.{digits}g}" == f"{target.limit:.{digits}g}":
        digits += 1
    return f"{target.measured:.{digits}g}"


def markdown(table: Table) -> str:
    """The table in Markdown, without its caption."""
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
