"""The results as a Markdown document, and as JSON to render it from again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.results import Part, Table, Target

__all__ = ["markdown", "read", "render", "write"]

_PARTS: TypeAdapter[dict[str, Part]] = TypeAdapter(dict[str, Part])

QUIET = 0.05
"""The share of the processor that other work may take without being reported."""

_HEAD = """# Performance

For people who plan capacity or compare packages: how fast is the service, and compared with what?

`make bench` measures everything on this page anew and writes it. Compare ratios, not milliseconds:
within each part, the alternatives ran in turn, in one run, on one machine. Milliseconds are
medians, with quartiles in brackets, and differ between machines.
"""


def read(path: Path, machine: dict[str, str]) -> dict[str, Part]:
    """The parts measured before, by name; none if on another machine or with other versions."""
    if not path.exists():
        return {}
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return _PARTS.validate_python(contents["parts"]) if contents["machine"] == machine else {}


def write(path: Path, machine: dict[str, str], parts: dict[str, Part]) -> None:
    """Write JSON to `path`, and the document to the same path with `.md`."""
    contents = {"machine": machine, "parts": {name: asdict(part) for name, part in parts.items()}}
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(render(machine, parts), encoding="utf-8")


def render(machine: dict[str, str], parts: dict[str, Part]) -> str:
    """The document, in Markdown."""
    pieces = [_HEAD, markdown(Table(("machine", ""), list(machine.items())))]
    targets = [target for part in parts.values() for target in part.targets]
    if targets:
        pieces += ["## Targets\n", markdown(_targets(targets))]
    for part in parts.values():
        pieces.append(f"## {part.title}\n\n{part.description}\n")
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


def _targets(targets: list[Target]) -> Table:
    rows = [
        (
            target.name,
            _measured(target),
            f"{'at most' if target.at_most else 'at least'} {target.limit:g}",
            "yes" if target.reached else "**no**",
        )
        for target in targets
    ]
    return Table(("", "measured", "target", "reached"), rows)


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
