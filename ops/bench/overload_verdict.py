"""What an overloaded server did, judged from the records of its requests and probes. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ops.checks import Check
from service.bench.metrics import ErrorCount, LatencySummary, count_errors, summarize_latency
from service.bench.records import RequestRecord

REFUSALS = (429, 503)
MIN_GOODPUT_FRACTION = 0.9
MAX_REFUSAL_P99_MS = 20.0
MAX_HEALTH_P99_MS = 100.0
MAX_RECOVERY_S = 10.0
MAX_RETRY_AFTER_S = 120.0
"""Clients of the official library wait no longer, and retry at once where they are told to."""


class ProbeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One GET /health from its sending to its last byte."""

    latency_s: float
    error: str | None = None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A span of monotonic time, and the finished requests that are counted in it."""

    start_s: float
    end_s: float

    def count_rate(self, records: Sequence[RequestRecord]) -> float:
        """Requests a second that succeeded and ended within the window."""
        num_ended = sum(record.error is None and self.start_s <= record.finished_s < self.end_s for record in records)
        return num_ended / (self.end_s - self.start_s)


class OverloadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one overload."""

    capacity_per_s: float
    """Requests a second in the best closed loop."""
    offered_per_s: float
    goodput_per_s: float
    """Requests a second that succeeded while the overload lasted."""
    num_offered: int
    num_succeeded: int
    num_refused: dict[int, int]
    """By status."""
    num_without_retry_after: int
    max_retry_after_s: float | None
    num_failed: int
    """Neither succeeded nor refused."""
    failures: list[ErrorCount]
    refusal: LatencySummary | None
    """From the moment a request was due to the last byte of its refusal."""
    ttft: LatencySummary | None
    """Of those that succeeded."""
    unloaded_ttft: LatencySummary | None
    health: LatencySummary | None
    num_health_failed: int
    recovery_s: float | None
    """From the last arrival until an answer starts as soon as it should; None where it never did."""


class OverloadRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured."""

    capacity_per_s: float
    offered_per_s: float
    window: Window
    unloaded: list[RequestRecord]
    overload: list[RequestRecord]
    probes: list[ProbeRecord]
    cpu_s: dict[str, float]
    recovery_s: float | None


def is_refusal(record: RequestRecord) -> bool:
    """The server said that it has no room now."""
    return record.error is not None and record.status in REFUSALS


def summarize_overload(run: OverloadRecords) -> OverloadFigures:
    """The figures of one run."""
    refused = [record for record in run.overload if is_refusal(record)]
    failed = [record for record in run.overload if record.error is not None and not is_refusal(record)]
    waits_s = [record.retry_after_s for record in refused if record.retry_after_s is not None]
    return OverloadFigures(
        capacity_per_s=run.capacity_per_s,
        offered_per_s=run.offered_per_s,
        goodput_per_s=run.window.count_rate(run.overload),
        num_offered=len(run.overload),
        num_succeeded=len(run.overload) - len(refused) - len(failed),
        num_refused={status: sum(record.status == status for record in refused) for status in REFUSALS},
        num_without_retry_after=len(refused) - len(waits_s),
        max_retry_after_s=max(waits_s, default=None),
        num_failed=len(failed),
        failures=count_errors(failed),
        refusal=summarize_latency(record.e2e_s for record in refused),
        ttft=summarize_latency(r.ttft_s for r in run.overload if r.error is None and r.ttft_s is not None),
        unloaded_ttft=summarize_latency(r.ttft_s for r in run.unloaded if r.error is None and r.ttft_s is not None),
        health=summarize_latency(probe.latency_s for probe in run.probes if probe.error is None),
        num_health_failed=sum(probe.error is not None for probe in run.probes),
        recovery_s=run.recovery_s,
    )


def judge_overload(figures: OverloadFigures) -> Iterator[Check]:
    """What an overloaded server owes: its full speed, quick and honest refusals, health, and a way back."""
    share = figures.goodput_per_s / figures.capacity_per_s if figures.capacity_per_s else 0.0
    yield Check(
        name="goodput of capacity",
        wanted=f"at least {MIN_GOODPUT_FRACTION:.0%}",
        found=f"{share:.0%}",
        is_ok=share >= MIN_GOODPUT_FRACTION,
    )
    num_refused = sum(figures.num_refused.values())
    yield Check(name="refused with 429 or 503", wanted="some", found=str(num_refused), is_ok=num_refused > 0)
    longest_s = figures.max_retry_after_s
    yield Check(
        name="refusals without Retry-After",
        wanted="0",
        found=str(figures.num_without_retry_after),
        is_ok=figures.num_without_retry_after == 0,
    )
    yield Check(
        name="longest Retry-After",
        wanted=f"at most {MAX_RETRY_AFTER_S:g} s",
        found="-" if longest_s is None else f"{longest_s:g} s",
        is_ok=longest_s is None or longest_s <= MAX_RETRY_AFTER_S,
    )
    yield Check(
        name="failed otherwise",
        wanted="0",
        found="; ".join([str(figures.num_failed), *(failure.message for failure in figures.failures)]),
        is_ok=figures.num_failed == 0,
    )
    yield _judge_p99("refusal p99", figures.refusal, MAX_REFUSAL_P99_MS)
    yield _judge_p99("/health p99", figures.health, MAX_HEALTH_P99_MS)
    unanswered = figures.num_health_failed
    yield Check(name="/health unanswered", wanted="0", found=str(unanswered), is_ok=unanswered == 0)
    recovery_s = figures.recovery_s
    yield Check(
        name="recovery",
        wanted=f"under {MAX_RECOVERY_S:g} s",
        found="never" if recovery_s is None else f"{recovery_s:.1f} s",
        is_ok=recovery_s is not None and recovery_s < MAX_RECOVERY_S,
    )


def _judge_p99(name: str, latency: LatencySummary | None, limit_ms: float) -> Check:
    return Check(
        name=name,
        wanted=f"under {limit_ms:g} ms",
        found="-" if latency is None else f"{latency.p99_ms:.1f} ms (p50 {latency.p50_ms:.1f})",
        is_ok=latency is not None and latency.p99_ms < limit_ms,
    )
