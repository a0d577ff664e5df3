"""Asks the advisory databases about every locked package: `python -m ops.audit`, or `make audit`.

    ok: 71 packages, no advisory              exit code 0
    requests 2.0.0: GHSA-..., mended in ...   exit code 1
    skipped: ...                              exit code 0, or 3 with --strict, for where a silent pass is worse

pip-audit does the asking, from an environment of its own so that it changes nothing that is locked. A package that a
source does not know counts as not asked: a mirror without advisories must not look like a clean result.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from contracts.errors import clip

TOOL = "pip-audit==2.10.1"
SOURCES = ("pypi", "osv")
TOOL_TIMEOUT_S = 600.0
REQUEST_TIMEOUT_S = 5
MAX_LISTED = 5
EXIT_FOUND = 1
EXIT_SKIPPED = 3

Ask = Callable[[str, Sequence[str]], "Answer"]


class Advisory(msgspec.Struct, frozen=True):
    """One entry of a database."""

    id: str
    fix_versions: list[str] = []


class AuditedPackage(msgspec.Struct, frozen=True):
    """One package; `skip_reason` set says that nothing is known of it."""

    name: str
    version: str = ""
    vulns: list[Advisory] = []
    skip_reason: str | None = None


class AuditReport(msgspec.Struct, frozen=True):
    """What pip-audit prints as JSON, as far as it is needed."""

    dependencies: list[AuditedPackage]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One source's answer about one list; without a report, `problem` says why."""

    report: AuditReport | None = None
    problem: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is printed, and with what exit code."""

    lines: list[str]
    exit_code: int


class SkippedAudit(Exception):
    """No source could be asked; the message says why."""


def install_tool(directory: Path) -> Path:
    """The interpreter of the tool's own environment, made at the first call. Raises SkippedAudit."""
    python = directory / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, capture_output=True, text=True)
        install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", TOOL]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise SkippedAudit(f"{TOOL} was not installed within {TOOL_TIMEOUT_S:g} s") from None
    except subprocess.CalledProcessError as failure:
        raise SkippedAudit(f"{TOOL} could not be installed: {last_line(failure.stderr)}") from failure
    return python


def last_line(text: str) -> str:
    """The words that a program ended with."""
    return clip((text.strip().splitlines() or ["it said nothing"])[-1])


def ask_pip_audit(python: Path) -> Ask:
    """How to ask a source about the packages of a list."""

    def ask(source: str, arguments: Sequence[str]) -> Answer:
        options = ["--disable-pip", "--progress-spinner=off", "--format=json", f"--timeout={REQUEST_TIMEOUT_S}"]
        command = [str(python), "-m", "pip_audit", f"--vulnerability-service={source}", *options, *arguments]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return Answer(problem=f"no answer within {TOOL_TIMEOUT_S:g} s")
        try:
            return Answer(report=msgspec.json.decode(done.stdout, type=AuditReport))
        except (msgspec.DecodeError, msgspec.ValidationError):
            return Answer(problem=last_line(done.stderr))

    return ask


def audit(ask: Ask, lists: Sequence[Sequence[str]]) -> AuditReport:
    """The first source's report that knows any package of every list. Raises SkippedAudit when none does."""
    problems: list[str] = []
    for source in SOURCES:
        answers = [ask(source, arguments) for arguments in lists]
        packages = [package for answer in answers if answer.report for package in answer.report.dependencies]
        missing = [answer.problem for answer in answers if answer.report is None]
        if not missing and any(package.skip_reason is None for package in packages):
            return AuditReport(packages)
        problems.append(f"{source}: {missing[0] if missing else 'knows none of the packages'}")
    raise SkippedAudit(f"no source of advisories was reached ({'; '.join(problems)})")


def judge(report: AuditReport, *, is_strict: bool) -> Verdict:
    """Advisories first, then packages that were not asked about, then the count."""
    found = [package for package in report.dependencies if package.vulns]
    unknown = [package.name for package in report.dependencies if package.skip_reason is not None]
    lines = [describe(package, advisory) for package in found for advisory in package.vulns]
    if unknown:
        more = ", ..." if len(unknown) > MAX_LISTED else ""
        lines.append(f"skipped: {len(unknown)} packages are unknown there: {', '.join(unknown[:MAX_LISTED])}{more}")
    num_asked = len(report.dependencies) - len(unknown)
    if found:
        return Verdict(lines=lines, exit_code=EXIT_FOUND)
    return Verdict(
        lines=[*lines, f"ok: {num_asked} packages, no advisory"],
        exit_code=EXIT_SKIPPED if unknown and is_strict else 0,
    )


def describe(package: AuditedPackage, advisory: Advisory) -> str:
    """One advisory as a line."""
    remedy = f"mended in {', '.join(advisory.fix_versions)}" if advisory.fix_versions else "not mended yet"
    return f"{package.name} {package.version}: {advisory.id}, {remedy}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m ops.audit", description="Ask for advisories on locked packages.")
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"), help="hashed requirements")
    parser.add_argument("--also", action="append", default=[], metavar="NAME==VERSION", help="a package beside them")
    parser.add_argument("--environment", type=Path, default=Path(".venv/audit"), help="where pip-audit is installed")
    parser.add_argument("--strict", action="store_true", help=f"exit code {EXIT_SKIPPED} where anything was skipped")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Install the tool, ask, print."""
    options = parse(arguments)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as others:
        others.write("".join(f"{package}\n" for package in options.also))
        others.flush()
        lists = [["--require-hashes", f"--requirement={options.lock}"]]
        lists += [["--no-deps", f"--requirement={others.name}"]] if options.also else []
        try:
            report = audit(ask_pip_audit(install_tool(options.environment)), lists)
        except SkippedAudit as reason:
            print(f"skipped: {reason}")
            return EXIT_SKIPPED if options.strict else 0
    verdict = judge(report, is_strict=options.strict)
    print("\n".join(verdict.lines))
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
