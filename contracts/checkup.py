"""What `quire doctor` and `quire smoke` found, as people read it and as --json prints it.

Stable: a field keeps its name and meaning from release to release; new ones may be added.
"""

from __future__ import annotations

from typing import Literal

import msgspec

CheckState = Literal["ok", "warning", "failed", "skipped"]
FAILED_EXIT_CODE = 7
"""Of `quire doctor` where a check failed: none of the codes of StartupError, which mean that it could not run."""

Evidence = dict[str, bool | int | float | str | None]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one check."""

    name: str
    """Of the check; the same whatever it found."""
    state: CheckState
    """A warning does not keep the server from serving."""
    summary: str
    """What was found, in a sentence."""
    remedy: str | None = None
    """What to do about a warning or a failure, with the exact flag; null where the summary says it."""
    evidence: Evidence = {}
    """The numbers behind the summary, with their units in their names."""
    took_s: float = 0.0


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of one run, in the order of the checks."""

    command: Literal["doctor", "smoke"]
    version: str
    """Of the Quire that checked."""
    subject: str
    """The model, or the server's address."""
    is_well: bool
    """No check failed."""
    took_s: float
    findings: list[Finding]


def conclude(command: Literal["doctor", "smoke"], version: str, subject: str, findings: list[Finding]) -> Checkup:
    """The findings with what follows from them."""
    return Checkup(
        command=command,
        version=version,
        subject=subject,
        is_well=all(finding.state != "failed" for finding in findings),
        took_s=round(sum(finding.took_s for finding in findings), 3),
        findings=findings,
    )
