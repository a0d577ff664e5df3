"""How one check becomes a finding: timed, and with what it raised as its words. Knows no check."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from contracts.checkup import CheckState, Evidence, Finding
from contracts.errors import QuireError

Check = Callable[[], Finding]


def examine(name: str, check: Check) -> Finding:
    """Run a check; an error of ours is a failure, whose last sentence is the remedy."""
    started_s = time.monotonic()
    try:
        finding = check()
    except QuireError as error:
        finding = failure_of(name, error)
    return msgspec.structs.replace(finding, name=name, took_s=round(time.monotonic() - started_s, 3))


def failure_of(name: str, error: QuireError) -> Finding:
    """Messages end with their remedy."""
    text = " ".join(error.message.split())
    summary, stop, remedy = text.removesuffix(".").rpartition(". ")
    if not stop:
        return Finding(name=name, state="failed", summary=text)
    return Finding(name=name, state="failed", summary=f"{summary}.", remedy=f"{remedy}.")


def found(
    state: CheckState, summary: str, remedy: str | None = None, /, **evidence: bool | int | float | str | None
) -> Finding:
    """A finding that `examine` gives its name."""
    numbers: Evidence = dict(evidence)
    return Finding(name="", state=state, summary=summary, remedy=remedy, evidence=numbers)
