"""Look up the pinned packages in a database of known vulnerabilities.

    .venv/bin/python .ci/audit.py

Findings in what is served (requirements/serve.txt, otel.txt) fail, unless `.ci/audit-ignore.txt`
lists them with a reason; findings in the others are printed. Where the database does not answer, a
line says what was not checked, and that is no failure.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SERVED = ("serve", "otel")
OTHERS = ("gpu", "train", "dev")
IGNORED = PROJECT / ".ci" / "audit-ignore.txt"
PATIENCE_S = 90.0
"""For one file: a request a package."""


def main() -> None:
    """Check the files in turn; exit with 1 if what is served has a finding."""
    reasons = ignored(IGNORED.read_text(encoding="utf-8"))
    failed = False
    for name in (*SERVED, *OTHERS):
        report = audit(PROJECT / "requirements" / f"{name}.txt")
        lines, findings = summary(name, report, reasons)
        print(*lines, sep="\n")
        failed |= bool(findings) and name in SERVED
        if report is None:
            break  # the others would wait as long, for nothing
    sys.exit(1 if failed else 0)


def ignored(text: str) -> dict[str, str]:
    """The reasons by identifier: a line is `ID reason`, or a comment.

    Raises:
        ValueError: an identifier without a reason.
    """
    reasons = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            identifier, _, reason = line.strip().partition(" ")
            if not reason.strip():
                raise ValueError(f"{identifier} is ignored without a reason")
            reasons[identifier] = reason.strip()
    return reasons


def audit(requirements: Path) -> dict[str, Any] | None:
    """The report of pip-audit; None where its database does not answer."""
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    command = [sys.executable, "-m", "pip_audit", *options, "--timeout=10", "-r", str(requirements)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        report: dict[str, Any] = json.loads(ended.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None
    return report


def summary(
    name: str, report: dict[str, Any] | None, reasons: dict[str, str]
) -> tuple[list[str], list[str]]:
    """What to print of a file's report, and the findings that nobody has given a reason for.

    A package that the database does not know is skipped by pip-audit, which then finds nothing: it
    counts as not checked.
    """
    if report is None:
        return [f"{name}: not checked: the database does not answer"], []
    packages = report["dependencies"]
    checked = [package for package in packages if "skip_reason" not in package]
    lines = [f"{name}: {len(checked)} of {len(packages)} packages checked"]
    if not checked:
        lines = [f"{name}: not checked: the database has none of its {len(packages)} packages"]
    findings = []
    for package in checked:
        for fault in package["vulns"]:
            names = [fault["id"], *fault.get("aliases", [])]
            line = f"{name}: {package['name']} {package['version']}: {', '.join(names)}"
            listed = [reasons[identifier] for identifier in names if identifier in reasons]
            lines.append(f"{line} (ignored: {listed[0]})" if listed else line)
            findings += [] if listed else [line]
    return lines, findings


if __name__ == "__main__":
    main()
