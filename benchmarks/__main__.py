"""`make bench`: measure the service beside its alternatives."""

import argparse
import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import document, machine
from benchmarks.protocol import PROJECT, WorkerFailed
from benchmarks.results import Measured

PARTS = {"cuts": 20, "variants": 20, "explain": 12, "http": 12, "cold": 5, "int8": 40}
"""The parts, with their default number of rounds. A part is the module of that name."""

COMMANDS = {
    "boxes": "benchmarks.boxes.command",
    "capacity": "benchmarks.capacity",
    "ray": "benchmarks.ray_serve",
    "revision": "benchmarks.revision",
}
"""Modules with a command line of their own."""

RESULT = PROJECT / "docs" / "performance.json"


def main() -> None:
    """Measure and print; with `--write`, also update `docs/performance.md`."""
    if command := COMMANDS.get("".join(sys.argv[1:2])):
        importlib.import_module(command).main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Four more commands have a --help of their own: `boxes` compares rules for the "
        "box, for docs/localization.md; `revision` compares the service with an earlier revision; "
        "`capacity` simulates more clients, cores and machines, for docs/capacity.md; `ray` "
        "measures the service under Ray Serve, for docs/ray.md.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--rounds", type=int, help="rounds of each part; each has its own default")
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"write {RESULT.relative_to(PROJECT).with_suffix('.md')}; what was measured before on "
        "this machine and is not now stays in it, and so does what was measured on other kinds of "
        "CPU",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="a prepared TFDS directory with Stanford Dogs, for the accuracy in int8",
    )
    options = parser.parse_args()
    if unknown_parts := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown_parts)}")
    machines = document.read(RESULT)
    here = _measured_before(machines)
    for name in options.parts or PARTS:
        print(f"measuring {name}", file=sys.stderr)
        others = machine.Others()
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            extra = [options.data_dir] if name == "int8" else []
            part = module.run(options.rounds or PARTS[name], *extra)
        except WorkerFailed as error:
            sys.exit(f"error: {name}: {error}")
        part.others = others.share
        parts = here.parts | {name: part}
        here = replace(here, parts={name: parts[name] for name in PARTS if name in parts})
        print(document.render_part(part))
        if options.write:
            machines.pop(machine.kind(), None)
            machines[machine.kind()] = here
            document.write(RESULT, machines)


def _measured_before(machines: Mapping[str, Measured]) -> Measured:
    """What was measured on this very machine with these versions, and nothing otherwise."""
    now = Measured(machine.describe())
    before = machines.get(machine.kind(), now)
    return before if before.machine == now.machine else now


if __name__ == "__main__":
    main()
