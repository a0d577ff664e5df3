"""Rates are differences between looks; another engine begins anew; quantiles are of what has ended well."""

from __future__ import annotations

import pytest

from service.terminal.monitor_meter import Meter, Rates, quantiles
from tests.service.terminal.live_looks import counters, explanation, look, row


@pytest.fixture
def meter() -> Meter:
    return Meter()


def test_one_look_has_no_rates(meter: Meter) -> None:
    meter.add(look(10.0))
    assert meter.rates == Rates()


def test_rates_are_over_the_time_between(meter: Meter) -> None:
    meter.add(look(10.0, counters=counters(num_steps=100, num_prompt_tokens=50)))
    later = counters(
        num_steps=110,
        num_requests=3,
        num_prompt_tokens=90,
        num_cached_tokens=30,
        num_generated_tokens=40,
        num_scheduled_seqs=25,
        step_time_s=0.05,
        first_token_s=0.6,
        num_first_tokens=3,
        inter_token_s=0.1,
        num_inter_tokens=50,
    )
    meter.add(look(12.0, counters=later))
    rates = meter.rates
    assert (rates.generated_per_s, rates.prompt_per_s, rates.requests_per_s) == (20.0, 20.0, 1.5)
    assert (rates.steps_per_s, rates.step_ms, rates.batch_size) == (5.0, 5.0, 2.5)
    assert (rates.cache_hit, rates.first_token_ms, rates.inter_token_ms) == (0.75, 200.0, 2.0)
    assert list(meter.history) == [20.0]


def test_old_looks_leave_the_window(meter: Meter) -> None:
    meter.add(look(0.0))
    meter.add(look(10.0, counters=counters(num_generated_tokens=1000)))
    meter.add(look(11.0, counters=counters(num_generated_tokens=1010)))
    meter.add(look(12.0, counters=counters(num_generated_tokens=1020)))
    assert meter.rates.generated_per_s == 10.0


def test_idle_engine_shows_the_hits_of_all_time(meter: Meter) -> None:
    total = counters(num_prompt_tokens=100, num_cached_tokens=25)
    meter.add(look(1.0, counters=total))
    meter.add(look(2.0, counters=total))
    assert (meter.rates.cache_hit, meter.rates.step_ms) == (0.25, None)


def test_who_comes_and_goes_is_noted_newest_first(meter: Meter) -> None:
    meter.add(look(1.0, [row(1), row(2)]))
    meter.add(look(2.0, [row(2), row(3, request=None)]))
    assert [(change.kind, change.tokens) for change in meter.changes] == [("in", 10), ("out", 2)]
    assert [change.request for change in meter.changes] == ["another key's", f"cmpl-{1:032d}"]


def test_counters_that_go_back_are_another_engines(meter: Meter) -> None:
    meter.add(look(100.0, [row(1)], counters=counters(num_steps=50, num_generated_tokens=9)))
    meter.add(look(3.0, [row(1)], counters=counters(num_steps=2)))
    assert (meter.num_restarts, meter.rates, list(meter.changes)) == (1, Rates(), [])


def test_quantiles_are_of_requests_that_ended_well() -> None:
    requests = [explanation(number) for number in range(1, 101)]
    requests.append(explanation(1000, status="cancelled"))
    found = quantiles(requests)
    total = found["total"]
    assert (total.num_requests, total.p50, total.p95, total.p99) == (100, 5000.0, 9500.0, 9900.0)
    assert found["first"].p50 == 10.0


def test_nothing_ended_has_no_quantiles() -> None:
    assert quantiles([explanation(1, status="running")]) == {}
