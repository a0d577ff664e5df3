"""The virtual token counters: what is charged, who is lifted, what is remembered, and how far tenants drift apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.fair_share import MAX_IDLE_TENANTS, FairShare
from contracts.generation import Tenant


def shares_of(**counters: float) -> FairShare:
    """Tenants with one live request each, who wait in this order."""
    shares = FairShare()
    for name, counter in counters.items():
        shares.open(name)
        shares.begin_waiting(name)
        shares._live[name].counter = counter
    return shares


def join(shares: FairShare, name: str) -> float:
    """The counter of a tenant whose first request came in just now."""
    shares.open(name)
    shares.begin_waiting(name)
    return shares.counter(name)


def leave(shares: FairShare, name: str) -> None:
    shares.end_waiting(name)
    shares.close(name)


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 6.0), (2.0, 3.0), (0.5, 12.0)])
def test_tokens_count_by_weight(weight: float, expected: float) -> None:
    shares = shares_of(a=0.0)
    shares.charge(Tenant(name="a", weight=weight), 6)
    assert shares.counter("a") == expected


def test_newcomer_starts_with_the_smallest_counter_of_those_that_wait() -> None:
    assert join(shares_of(a=30.0, b=20.0, c=40.0), "new") == 20.0


def test_who_runs_but_does_not_wait_lifts_nobody() -> None:
    shares = shares_of(runs=5.0, waits=20.0)
    shares.end_waiting("runs")
    assert join(shares, "new") == 20.0


def test_newcomer_to_an_empty_queue_starts_where_the_last_one_is_now() -> None:
    shares = shares_of(a=5.0, b=20.0)
    shares.end_waiting("a")
    shares.end_waiting("b")
    shares.charge(Tenant(name="b"), 7)
    assert join(shares, "new") == 27.0


def test_who_was_ahead_is_still_ahead_after_a_pause() -> None:
    shares = shares_of(heavy=90.0, light=10.0)
    leave(shares, "heavy")
    assert join(shares, "heavy") == 90.0


def test_who_was_behind_has_saved_up_nothing_in_a_pause() -> None:
    shares = shares_of(idle=10.0, busy=20.0)
    leave(shares, "idle")
    shares.charge(Tenant(name="busy"), 1000)
    assert join(shares, "idle") == 1020.0


def test_request_beside_another_of_the_same_tenant_changes_nothing() -> None:
    shares = shares_of(a=10.0, b=20.0)
    shares.open("a")
    shares.close("a")
    assert (shares.counter("a"), shares.num_tenants) == (10.0, 2)


def test_idle_engine_remembers_nobody() -> None:
    shares = shares_of(a=90.0, b=10.0)
    leave(shares, "b")
    leave(shares, "a")
    assert shares.num_tenants == 0
    assert join(shares, "c") == 0.0


def test_100_000_labels_leave_a_bounded_number_of_counters() -> None:
    shares = shares_of(stays=0.0)
    for number in range(100_000):
        name = f"label-{number}"
        shares.open(name)
        shares.begin_waiting(name)
        shares.charge(Tenant(name=name), 5)
        leave(shares, name)
    assert shares.num_tenants == MAX_IDLE_TENANTS + 1


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    sizes=st.lists(st.integers(1, 50), min_size=30, max_size=200),
)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_service_of_tenants_that_always_wait_differs_by_less_than_one_quantum(
    weights: list[float], sizes: list[int]
) -> None:
    tenants = [Tenant(name=str(index), weight=weight) for index, weight in enumerate(weights)]
    shares = shares_of(**{tenant.name: 0.0 for tenant in tenants})
    service = dict.fromkeys(shares._live, 0.0)
    for size in sizes:
        tenant = min(tenants, key=lambda tenant: shares.counter(tenant.name))
        shares.charge(tenant, size)
        service[tenant.name] += size / tenant.weight
        assert max(service.values()) - min(service.values()) <= max(sizes) / min(weights) + 1e-6
