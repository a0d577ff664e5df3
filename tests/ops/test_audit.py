"""The audit of locked packages: what it says where advisories are found, unknown, or out of reach. No network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.audit import (
    EXIT_FOUND,
    EXIT_SKIPPED,
    Advisory,
    Answer,
    Ask,
    AuditedPackage,
    AuditReport,
    SkippedAudit,
    ask_pip_audit,
    audit,
    judge,
    last_line,
)

CLEAN = AuditedPackage("click", "8.2.0")
HIT = AuditedPackage("jinja2", "3.1.0", [Advisory("GHSA-1", ["3.1.6"]), Advisory("GHSA-2")])
UNKNOWN = AuditedPackage("numba", skip_reason="Dependency not found")


def answering(**reports: Answer) -> tuple[list[str], Ask]:
    """An asker that gives each source's answer, and the list of what was asked."""
    asked: list[str] = []

    def ask(source: str, arguments: Sequence[str]) -> Answer:
        asked.append(source)
        return reports[source]

    return asked, ask


def report(*packages: AuditedPackage) -> Answer:
    return Answer(report=AuditReport(list(packages)))


@pytest.mark.parametrize(
    ("packages", "is_strict", "exit_code"),
    [
        ([CLEAN], True, 0),
        ([CLEAN, HIT], False, EXIT_FOUND),
        ([CLEAN, HIT, UNKNOWN], True, EXIT_FOUND),
        ([CLEAN, UNKNOWN], False, 0),
        ([CLEAN, UNKNOWN], True, EXIT_SKIPPED),
    ],
)
def test_exit_code_says_what_was_found(packages: list[AuditedPackage], is_strict: bool, exit_code: int) -> None:
    assert judge(AuditReport(packages), is_strict=is_strict).exit_code == exit_code


def test_every_advisory_is_a_line_with_its_remedy() -> None:
    assert judge(AuditReport([CLEAN, HIT]), is_strict=False).lines == [
        "jinja2 3.1.0: GHSA-1, mended in 3.1.6",
        "jinja2 3.1.0: GHSA-2, not mended yet",
    ]


def test_unknown_packages_are_named_and_not_counted_as_clean() -> None:
    assert judge(AuditReport([CLEAN, UNKNOWN]), is_strict=False).lines == [
        "skipped: 1 packages are unknown there: numba",
        "ok: 1 packages, no advisory",
    ]


def test_first_source_that_knows_the_packages_is_enough() -> None:
    asked, ask = answering(pypi=report(CLEAN))
    assert audit(ask, [["a"]]).dependencies == [CLEAN]
    assert asked == ["pypi"]


def test_mirror_that_knows_nothing_is_not_a_clean_result() -> None:
    """pip-audit itself leaves with exit code 0 there."""
    asked, ask = answering(pypi=report(UNKNOWN), osv=report(CLEAN))
    assert audit(ask, [["a"]]).dependencies == [CLEAN]
    assert asked == ["pypi", "osv"]


def test_no_source_at_all_is_skipped_with_both_reasons() -> None:
    _, ask = answering(pypi=report(UNKNOWN), osv=Answer(problem="Failed to resolve"))
    with pytest.raises(SkippedAudit, match=r"pypi: knows none.*osv: Failed to resolve"):
        audit(ask, [["a"]])


def fake_python(tmp_path: Path, body: str) -> Path:
    """A program in the place of the tool's interpreter."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    script.chmod(0o755)
    return script


def test_report_of_the_tool_is_read(tmp_path: Path) -> None:
    body = """print('{"dependencies": [{"name": "a", "version": "1", "vulns": []}], "fixes": []}'); sys.exit(1)"""
    answer = ask_pip_audit(fake_python(tmp_path, body))("pypi", [])
    assert answer.report == AuditReport([AuditedPackage("a", "1")])


def test_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    body = "sys.exit('Traceback\\nrequests.ConnectionError: no route')"
    assert ask_pip_audit(fake_python(tmp_path, body))("osv", []).problem == "requests.ConnectionError: no route"
    assert last_line("") == "it said nothing"


def test_command_without_the_tool_says_skipped(tmp_path: Path) -> None:
    """As on a machine without a package index: the line is there, and only --strict fails."""
    environment = tmp_path / "audit"
    (environment / "bin").mkdir(parents=True)
    fake_python(environment / "bin", "sys.exit('no index')")
    command = [sys.executable, "-m", "ops.audit", "--environment", str(environment)]
    loose = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    strict = subprocess.run([*command, "--strict"], check=False, capture_output=True, text=True, timeout=60)
    assert (loose.returncode, strict.returncode) == (0, EXIT_SKIPPED)
    assert loose.stdout.startswith("skipped: pip-audit==")
    assert loose.stdout.endswith("could not be installed: no index\n")
