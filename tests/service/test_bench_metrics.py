"""Bench figures: percentiles as NumPy computes them, throughput, goodput, ratios of paired rounds."""

from __future__ import annotations

import numpy as np
import pytest

from service.bench.metrics import Ratio, Slo, meets_slo, pair_ratio, percentile, summarize
from service.bench.records import RequestRecord


def make_record(started_s: float = 0.0, error: str | None = None, completion_tokens: int | None = 5) -> RequestRecord:
    """Text after 100 ms, then gaps of 10, 10 and 40 ms, last byte 5 ms after the last text."""
    return RequestRecord(
        index=0,
        prompt_len=7,
        output_len=5,
        started_s=started_s,
        first_text_s=started_s + 0.100,
        last_text_s=started_s + 0.160,
        finished_s=started_s + 0.165,
        gaps_s=[0.010, 0.010, 0.040],
        num_text_events=4,
        completion_tokens=completion_tokens,
        prompt_tokens=9,
        error=error,
    )


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [1.0, 5.0, 5.0, 9.0], [float(i * i) for i in range(101)]])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_percentile_equals_numpys(values: list[float], fraction: float) -> None:
    """Linear interpolation between the closest ranks."""
    assert percentile(values, fraction) == pytest.approx(np.percentile(values, 100 * fraction))


def test_summary_counts_tokens_by_usage_over_the_wall() -> None:
    """From the first send to the last byte, over overlapping requests."""
    summary = summarize([[make_record(10.0), make_record(10.835)]])
    assert summary.wall_s == pytest.approx(1.0)
    assert summary.output_tokens_per_s == pytest.approx(10.0)
    assert summary.requests_per_s == pytest.approx(2.0)
    assert summary.mean_prompt_tokens == 9
    assert summary.num_without_usage == summary.num_short == summary.num_failed == 0


def test_latencies_are_gaps_between_arrivals_and_tpot_is_apart() -> None:
    """ITL is never divided by the tokens of an event; TPOT is (60 ms) / (5 tokens - 1)."""
    summary = summarize([[make_record()]])
    assert summary.itl is not None
    assert (summary.itl.p50_ms, summary.itl.max_ms) == pytest.approx((10.0, 40.0))
    assert summary.tpot is not None
    assert summary.tpot.p50_ms == pytest.approx(15.0)
    assert summary.ttft is not None
    assert summary.ttft.p50_ms == pytest.approx(100.0)
    assert summary.e2e is not None
    assert summary.e2e.p50_ms == pytest.approx(165.0)


def test_missing_usage_falls_back_to_events_and_says_so() -> None:
    """Four events instead of five tokens: short by count, and marked."""
    summary = summarize([[make_record(completion_tokens=None)]])
    assert (summary.num_output_tokens, summary.num_without_usage, summary.num_short) == (4, 1, 1)


def test_failed_requests_bring_no_tokens_and_no_latencies() -> None:
    """Their first words are reported with their number."""
    summary = summarize([[make_record(error="boom"), make_record(error="boom"), make_record(error="bang")]])
    assert (summary.num_failed, summary.num_output_tokens, summary.ttft) == (3, 0, None)
    assert [(error.message, error.num_requests) for error in summary.errors] == [("boom", 2), ("bang", 1)]


def test_walls_of_rounds_add_up() -> None:
    """The pause between rounds, when the other server runs, does not count."""
    summary = summarize([[make_record(0.0)], [make_record(100.0)]])
    assert summary.wall_s == pytest.approx(0.33)


def test_no_requests_give_zeros() -> None:
    """An empty level is no division by zero."""
    summary = summarize([[]])
    assert (summary.num_requests, summary.output_tokens_per_s, summary.itl) == (0, 0.0, None)


@pytest.mark.parametrize(
    ("slo", "is_good"),
    [
        (Slo(), True),
        (Slo(ttft=101, itl=41, tpot=16, e2e=166), True),
        (Slo(ttft=99), False),
        (Slo(itl=39), False),
        (Slo(tpot=14), False),
        (Slo(e2e=164), False),
    ],
)
def test_good_requests_meet_every_limit(slo: Slo, is_good: bool) -> None:
    """One limit over is one limit too many; the itl limit is on the request's own p99."""
    assert meets_slo(make_record(), slo) is is_good


def test_failed_request_is_never_good() -> None:
    """Whatever its latencies were."""
    assert not meets_slo(make_record(error="x"), Slo())


def test_goodput_is_good_requests_a_second() -> None:
    """Without an SLO there is none."""
    records = [make_record(0.0), make_record(0.835), make_record(0.1, error="x")]
    goodput = summarize([records], Slo(ttft=500)).goodput_requests_per_s
    assert goodput == pytest.approx(2.0)
    assert summarize([records]).goodput_requests_per_s is None


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio"),
    [
        ([2.0, 9.0, 4.0], [1.0, 3.0, 4.0], Ratio(min=1.0, median=2.0, max=3.0)),
        ([3.0], [2.0], Ratio(min=1.5, median=1.5, max=1.5)),
        ([3.0, 1.0], [2.0, 0.0], None),
        ([], [], None),
    ],
)
def test_paired_ratio_is_taken_round_by_round(ours: list[float], theirs: list[float], ratio: Ratio | None) -> None:
    """Never the ratio of two means."""
    assert pair_ratio(ours, theirs) == ratio
