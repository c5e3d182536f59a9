"""Look up the pinned packages in a database of known vulnerabilities.

    .venv/bin/python .ci/audit.py

Findings in what is served (requirements/serve.txt, otel.txt, ray.txt) fail, unless
`.ci/audit-ignore.txt` lists them with a reason; findings in the others are printed. Where the
database does not answer, a line says what was not checked, and that is no failure. Whatever else
keeps pip-audit from checking is one.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SERVED = ("serve", "otel", "ray")
OTHERS = ("gpu", "train", "dev")
IGNORED = PROJECT / ".ci" / "audit-ignore.txt"
PATIENCE_S = 90.0
"""For one file: a request a package."""

UNREACHABLE = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries exceeded"
    r"|Could not connect to|Connection to \S+ timed out|NameResolutionError|[Cc]onnection refused"
    r"|upstream requested|HTTPError: 5\d\d|: 5\d\d Server Error"
)
"""In what pip-audit writes where it had no answer."""


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
    """The report of pip-audit; None where its database does not answer.

    Raises:
        SystemExit: pip-audit failed for another reason, which is the message.
    """
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    command = [sys.executable, "-m", "pip_audit", *options, "--timeout=10", "-r", str(requirements)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return parsed(requirements.stem, ended.stdout, ended.stderr)


def parsed(name: str, output: str, errors: str) -> dict[str, Any] | None:
    """The report in what pip-audit has written; None where its database did not answer.

    Raises:
        SystemExit: there is none, for another reason.
    """
    try:
        report: dict[str, Any] = json.loads(output)
    except json.JSONDecodeError:
        if UNREACHABLE.search(errors):
            return None
        last = (errors.strip().splitlines() or ["it wrote nothing"])[-1]
        sys.exit(f"{name}: pip-audit failed: {last}")
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
