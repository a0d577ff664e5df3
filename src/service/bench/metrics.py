"""Turns request records into figures: throughput, latency percentiles, goodput. Pure arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from service.bench.records import RequestRecord

MAX_ERROR_KINDS = 5


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of one latency in milliseconds."""

    p50_ms: float
    p99_ms: float
    mean_ms: float
    max_ms: float


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in milliseconds that a good request meets, all of those given.

    `ttft`: time to first text. `itl`: the 99th percentile of the request's own gaps. `tpot`: its mean time per token
    after the first. `e2e`: time to the last byte.
    """

    ttft: float | None = None
    itl: float | None = None
    tpot: float | None = None
    e2e: float | None = None


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """One text of failure and how many requests ended with it."""

    message: str
    num_requests: int


class LevelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one level; latencies cover the requests that succeeded, None where there was nothing to time."""

    num_requests: int
    num_failed: int
    wall_s: float
    """From the first send to the last byte."""
    num_output_tokens: int
    mean_prompt_tokens: float
    output_tokens_per_s: float
    requests_per_s: float
    ttft: LatencySummary | None
    itl: LatencySummary | None
    """Gaps between socket reads that brought text."""
    tpot: LatencySummary | None
    e2e: LatencySummary | None
    goodput_requests_per_s: float | None
    """Requests a second that met the SLO; None without an SLO."""
    num_short: int
    """Answers with fewer tokens than asked for."""
    num_without_usage: int
    """Answers whose tokens are text events, as the server sent no usage."""
    errors: list[ErrorCount]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times faster the first server was, over the rounds of a paired run."""

    min: float
    median: float
    max: float


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of sorted `values` lie, interpolated linearly (NumPy's default method)."""
    position = fraction * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (position - low)


def summarize_latency(values_s: Iterable[float]) -> LatencySummary | None:
    """Percentiles of latencies in seconds; None when there are none."""
    ordered = sorted(values_s)
    if not ordered:
        return None
    return LatencySummary(
        p50_ms=1e3 * percentile(ordered, 0.5),
        p99_ms=1e3 * percentile(ordered, 0.99),
        mean_ms=1e3 * sum(ordered) / len(ordered),
        max_ms=1e3 * ordered[-1],
    )


def meets_slo(record: RequestRecord, slo: Slo) -> bool:
    """The request succeeded within every limit of the SLO; a latency that it does not have meets its limit."""
    if record.error is not None:
        return False
    itl_s = percentile(sorted(record.gaps_s), 0.99) if record.gaps_s else None
    pairs = ((record.ttft_s, slo.ttft), (itl_s, slo.itl), (record.tpot_s, slo.tpot), (record.e2e_s, slo.e2e))
    return all(limit_ms is None or value_s is None or 1e3 * value_s <= limit_ms for value_s, limit_ms in pairs)


def count_errors(records: Iterable[RequestRecord]) -> list[ErrorCount]:
    """The most frequent failures."""
    counts = Counter(record.error for record in records if record.error is not None)
    return [ErrorCount(message=text, num_requests=count) for text, count in counts.most_common(MAX_ERROR_KINDS)]


def measure_wall_s(records: Sequence[RequestRecord]) -> float:
    """Seconds from the first send to the last byte of one round; in an open loop from the first arrival."""
    if not records:
        return 0.0
    return max(record.finished_s for record in records) - min(record.started_s for record in records)


def summarize(rounds: Sequence[Sequence[RequestRecord]], slo: Slo | None = None) -> LevelSummary:
    """The figures of a level over all its rounds, whose walls add up. Tokens of failed requests do not count."""
    records = [record for one_round in rounds for record in one_round]
    done = [record for record in records if record.error is None]
    wall_s = sum(measure_wall_s(one_round) for one_round in rounds)
    num_tokens = sum(record.num_output_tokens for record in done)
    prompt_lens = [record.prompt_len if record.prompt_tokens is None else record.prompt_tokens for record in done]
    return LevelSummary(
        num_requests=len(records),
        num_failed=len(records) - len(done),
        wall_s=wall_s,
        num_output_tokens=num_tokens,
        mean_prompt_tokens=_divide(sum(prompt_lens), len(prompt_lens)),
        output_tokens_per_s=_divide(num_tokens, wall_s),
        requests_per_s=_divide(len(done), wall_s),
        ttft=summarize_latency(record.ttft_s for record in done if record.ttft_s is not None),
        itl=summarize_latency(gap_s for record in done for gap_s in record.gaps_s),
        tpot=summarize_latency(record.tpot_s for record in done if record.tpot_s is not None),
        e2e=summarize_latency(record.e2e_s for record in done),
        goodput_requests_per_s=None if slo is None else _divide(sum(meets_slo(r, slo) for r in done), wall_s),
        num_short=sum(record.num_output_tokens < record.output_len for record in done),
        num_without_usage=sum(record.completion_tokens is None for record in done),
        errors=count_errors(records),
    )


def pair_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Round by round, ours over theirs; None when a round of theirs has no output."""
    if not ours or not all(theirs):
        return None
    ratios = sorted(own / other for own, other in zip(ours, theirs, strict=True))
    return Ratio(min=ratios[0], median=percentile(ratios, 0.5), max=ratios[-1])


def _divide(count: int, by: float) -> float:
    return count / by if by > 0 else 0.0
