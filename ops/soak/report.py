"""Shows a soak: tables for people, JSON for programs. Knows nothing of how it was run."""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.console import Console

from ops.checks import Check, build_table, list_checks
from ops.soak.clients import Ending, Outcome
from ops.soak.processes import TreeSample
from ops.soak.run import SoakPlan, SoakResult
from ops.soak.traffic import Kind
from ops.soak.verdict import Idle, MemorySlope
from service.bench.metrics import percentile

MIB = 2**20
NUM_ROWS = 10


class SoakReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON file."""

    date: str
    platform: str
    num_cpus: int | None
    command: list[str]
    model: str
    plan: SoakPlan
    is_clean: bool
    checks: list[Check]
    endings: dict[str, dict[str, int]]
    """Kind to ending to number of requests."""
    num_preemptions: float | None
    slope: MemorySlope | None
    first_byte_p99_ms: tuple[float | None, float | None]
    """Of the requests that finished in the first and in the last quarter of the time."""
    before: Idle
    after: Idle
    samples: list[TreeSample]


def build_report(result: SoakResult, plan: SoakPlan, model: str, command: list[str]) -> SoakReport:
    """Everything of one soak."""
    return SoakReport(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        platform=platform.platform(),
        num_cpus=os.cpu_count(),
        command=command,
        model=model,
        plan=plan,
        is_clean=result.is_clean,
        checks=result.checks,
        endings=count_endings(result.outcomes),
        num_preemptions=result.num_preemptions,
        slope=result.slope,
        first_byte_p99_ms=compare_quarters(result.outcomes),
        before=result.before,
        after=result.after,
        samples=result.samples,
    )


def count_endings(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Requests of each kind by how they ended."""
    counts = Counter((outcome.kind, outcome.ending) for outcome in outcomes)
    return {kind.value: {ending.value: counts[kind, ending] for ending in Ending} for kind in Kind}


def compare_quarters(outcomes: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """99th percentile in ms of the time to the first byte, early and late; None where nothing finished."""
    timed = [outcome for outcome in outcomes if outcome.ending is Ending.FINISHED and outcome.first_byte_s is not None]
    if not timed:
        return None, None
    first_s = min(outcome.started_s for outcome in timed)
    quarter_s = (max(outcome.started_s for outcome in timed) - first_s) / 4
    early = [outcome for outcome in timed if outcome.started_s <= first_s + quarter_s]
    late = [outcome for outcome in timed if outcome.started_s >= first_s + 3 * quarter_s]
    return _p99_ms(early), _p99_ms(late)


def _p99_ms(outcomes: Sequence[Outcome]) -> float | None:
    times_s = sorted(outcome.first_byte_s for outcome in outcomes if outcome.first_byte_s is not None)
    return 1e3 * percentile(times_s, 0.99) if times_s else None


def pick_rows(samples: Sequence[TreeSample]) -> list[TreeSample]:
    """At most NUM_ROWS samples, evenly spread, the last one among them."""
    if len(samples) <= NUM_ROWS:
        return list(samples)
    last = len(samples) - 1
    return [samples[round(row * last / (NUM_ROWS - 1))] for row in range(NUM_ROWS)]


def print_report(console: Console, report: SoakReport) -> None:
    """Print the course, the endings and the checks."""
    course = build_table("minute", "processes", "MiB", "descriptors", "threads")
    start_s = report.samples[0].at_s if report.samples else 0.0
    for sample in pick_rows(report.samples):
        figures = (f"{sample.rss_bytes / MIB:,.1f}", str(sample.num_fds), str(sample.num_threads))
        course.add_row(f"{(sample.at_s - start_s) / 60:.1f}", str(len(sample.processes)), *figures)
    console.print(course)
    endings = build_table("requests", *(ending.value for ending in Ending))
    for kind, counts in report.endings.items():
        endings.add_row(kind, *(str(count) for count in counts.values()))
    console.print(endings)
    console.print(list_checks(report.checks))
    early, late = (("-" if value is None else f"{value:,.0f} ms") for value in report.first_byte_p99_ms)
    told = "not told by the server" if report.num_preemptions is None else f"{report.num_preemptions:,.0f}"
    console.print(f"first byte p99: {early} in the first quarter, {late} in the last; preemptions: {told}")
