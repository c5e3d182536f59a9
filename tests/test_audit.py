"""The reading of pip-audit's report; tests/app has no part in it, and the network neither."""

import runpy
from typing import Any

import pytest

from app.settings import PROJECT

AUDIT = runpy.run_path(str(PROJECT / ".ci" / "audit.py"))


def package(name: str, *faults: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(faults)}


def skipped(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": f"{name} could not be audited"}


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


FAULT = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-99"], "fix_versions": ["1.1"]}


def test_a_database_that_does_not_answer_is_said_to_have_checked_nothing() -> None:
    lines, findings = AUDIT["summary"]("serve", None, {})
    assert lines == ["serve: not checked: the database does not answer"]
    assert findings == []


def test_packages_that_it_does_not_know_are_not_checked() -> None:
    """pip-audit itself then says that no vulnerabilities were found."""
    lines, _ = AUDIT["summary"]("serve", report(skipped("a"), skipped("b")), {})
    assert lines == ["serve: not checked: the database has none of its 2 packages"]
    lines, _ = AUDIT["summary"]("serve", report(package("a"), skipped("b")), {})
    assert lines == ["serve: 1 of 2 packages checked"]


@pytest.mark.parametrize(
    "errors",
    [
        "Traceback ...\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='h', port=1)",
        "ERROR:pip_audit._cli:Could not connect to the vulnerability service",
        "requests.exceptions.ReadTimeout: Read timed out. (read timeout=10)",
    ],
)
def test_no_answer_is_no_failure(errors: str) -> None:
    assert AUDIT["parsed"]("serve", "", errors) is None


@pytest.mark.parametrize(
    ("errors", "last"),
    [
        ("No module named pip_audit\n", "No module named pip_audit"),
        ("usage: ...\npip-audit: error: unrecognized arguments: --x\n", "arguments: --x"),
        ("", "it wrote nothing"),
    ],
)
def test_any_other_fault_of_pip_audit_fails(errors: str, last: str) -> None:
    with pytest.raises(SystemExit, match=last) as caught:
        AUDIT["parsed"]("serve", "", errors)
    assert caught.value.code not in (0, None)


@pytest.mark.parametrize("listed", ["PYSEC-2026-1", "CVE-2026-99", None])
def test_a_finding_counts_unless_it_is_listed(listed: str | None) -> None:
    reasons = {listed: "not called"} if listed else {}
    lines, findings = AUDIT["summary"]("serve", report(package("a", FAULT)), reasons)
    line = "serve: a 1.0: PYSEC-2026-1, CVE-2026-99"
    assert findings == ([] if listed else [line])
    assert lines[1:] == [f"{line} (ignored: not called)" if listed else line]


def test_the_list_has_reasons() -> None:
    ignored = AUDIT["ignored"]
    assert ignored("# none\n\nCVE-1 never  called\n") == {"CVE-1": "never  called"}
    with pytest.raises(ValueError, match="CVE-2"):
        ignored("CVE-2\n")
    ignored((PROJECT / ".ci" / "audit-ignore.txt").read_text())
