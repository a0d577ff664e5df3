"""Limits of a tenant: exact, all or nothing, given back, and forgotten when they no longer matter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.scheduler import Scheduler
from batching.tenant_limits import CONCURRENCY_RETRY_S, TenantLimits
from contracts.errors import InvalidValue, QueueFull, RateLimited
from contracts.generation import GenerationRequest, Tenant
from tests.batching.core_tenant_battery import play_limits
from tests.batching.core_world import World, small_config, small_request


def request_of(request_id: str, num_prompt: int = 1, max_tokens: int = 1, **options: object) -> GenerationRequest:
    """A request of a tenant whose limits are among the options."""
    limits = {name: options.pop(name) for name in list(options) if name in Tenant.__struct_fields__}
    tenant = Tenant(**{"name": "a", **limits})  # type: ignore[arg-type]
    return small_request(request_id, [0] * num_prompt, max_tokens=max_tokens, tenant=tenant, **options)


def refusal_of(limits: TenantLimits, request: GenerationRequest, now_s: float = 0.0) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.admit(request, now_s)
    return caught.value


def num_admitted(limits: TenantLimits, num_sent: int, now_s: float, **options: object) -> int:
    """Send that many requests at one moment."""
    num_refused = limits.num_refused
    for number in range(num_sent):
        try:
            limits.admit(request_of(f"{now_s}-{number}", **options), now_s)  # type: ignore[arg-type]
        except RateLimited:
            continue
    return num_sent - (limits.num_refused - num_refused)


# ---- requests a minute


def test_of_twice_the_limit_at_once_exactly_the_limit_comes_in() -> None:
    assert num_admitted(TenantLimits(), 20, 0.0, requests_per_minute=10) == 10


def test_requests_refill_continuously_and_not_beyond_a_minute() -> None:
    limits = TenantLimits()
    assert num_admitted(limits, 20, 0.0, requests_per_minute=10) == 10
    assert num_admitted(limits, 20, 5.9, requests_per_minute=10) == 0
    assert num_admitted(limits, 20, 6.0, requests_per_minute=10) == 1
    assert num_admitted(limits, 20, 18.0, requests_per_minute=10) == 2
    assert num_admitted(limits, 20, 1000.0, requests_per_minute=10) == 10


def test_refused_request_says_which_limit_the_numbers_and_when_to_come_back() -> None:
    limits = TenantLimits()
    num_admitted(limits, 7, 0.0, requests_per_minute=7)
    refusal = refusal_of(limits, request_of("r", requests_per_minute=7), 1.0)
    assert refusal.message == ("requests_per_minute of this key is 7, and 0 of them are left. Try again in 7.571 s.")
    assert refusal.retry_after_s == pytest.approx(60 / 7 - 1)
    assert (refusal.status, refusal.code, refusal.should_retry) == (429, "rate_limit_exceeded", True)


@pytest.mark.parametrize("per_minute", [1, 7, 11, 600])
def test_who_comes_back_when_told_is_let_in(per_minute: int) -> None:
    limits, now_s = TenantLimits(), 1234.567
    num_admitted(limits, per_minute, now_s, requests_per_minute=per_minute)
    wait_s = refusal_of(limits, request_of("early", requests_per_minute=per_minute), now_s).retry_after_s or 0.0
    refusal_of(limits, request_of("too early", requests_per_minute=per_minute), now_s + wait_s - 1e-6)
    limits.admit(request_of("in time", requests_per_minute=per_minute), now_s + wait_s + 1e-9)


# ---- tokens a minute


def test_tokens_count_prompt_and_all_that_may_be_generated() -> None:
    limits = TenantLimits()
    limits.admit(request_of("r", num_prompt=10, max_tokens=20, num_samples=3, tokens_per_minute=100), 0.0)
    assert refusal_of(limits, request_of("s", 11, 20, tokens_per_minute=100)).message == (
        "tokens_per_minute of this key is 100, of which 30 are left, and the request counts 31 (11 in the prompt, "
        "1 x 20 to generate). Try again in 0.600 s."
    )
    limits.admit(request_of("t", 10, 20, tokens_per_minute=100), 0.0)


def test_what_was_not_generated_is_given_back_at_the_end() -> None:
    limits = TenantLimits()
    request = request_of("r", num_prompt=10, max_tokens=20, num_samples=2, tokens_per_minute=50)
    limits.admit(request, 0.0)
    limits.use("r", 5)
    limits.use("r", 0)
    refusal_of(limits, request_of("s", 1, 1, tokens_per_minute=50))
    limits.close("r")
    assert num_admitted(limits, 100, 0.0, num_prompt=4, max_tokens=1, tokens_per_minute=50) == 7


def test_more_tokens_than_a_minute_ever_has_are_refused_for_good() -> None:
    limits = TenantLimits()
    with pytest.raises(
        InvalidValue, match=r"counts 101 tokens \(41 in the prompt, 3 x 20 to generate\), but"
    ) as caught:
        limits.admit(request_of("r", 41, 20, num_samples=3, tokens_per_minute=100), 0.0)
    assert caught.value.param == "max_tokens"
    limits.admit(request_of("r", 40, 20, num_samples=3, tokens_per_minute=100), 0.0)


@pytest.mark.parametrize("name", ["requests_per_minute", "max_concurrency"])
def test_limit_of_nothing_refuses_for_good(name: str) -> None:
    with pytest.raises(InvalidValue, match=f"{name} of this key is 0"):
        TenantLimits().admit(request_of("r", **{name: 0}), 0.0)


# ---- requests at once


def test_requests_beyond_the_concurrency_wait_for_an_end() -> None:
    limits = TenantLimits()
    assert num_admitted(limits, 6, 0.0, max_concurrency=3) == 3
    refusal = refusal_of(limits, request_of("r", max_concurrency=3))
    assert refusal.message.startswith("max_concurrency of this key is 3, and 3 of its requests wait or run.")
    assert refusal.retry_after_s == CONCURRENCY_RETRY_S
    limits.close("0.0-1")
    limits.admit(request_of("r", max_concurrency=3), 0.0)


# ---- several


def test_refusal_by_one_limit_uses_up_nothing_of_the_others() -> None:
    limits = TenantLimits()
    options = {"requests_per_minute": 5, "tokens_per_minute": 20}
    limits.admit(request_of("large", 10, 9, **options), 0.0)
    for number in range(10):
        refusal_of(limits, request_of(f"r{number}", 5, 5, **options))
    limits.close("large")
    assert num_admitted(limits, 10, 0.0, **options) == 4


def test_wait_is_the_longest_of_the_limits_that_are_reached() -> None:
    limits = TenantLimits()
    options = {"requests_per_minute": 1, "tokens_per_minute": 60, "max_concurrency": 1}
    limits.admit(request_of("first", 40, 20, **options), 0.0)
    assert refusal_of(limits, request_of("r", 10, 20, **options)).retry_after_s == 60.0
    options["requests_per_minute"] = 100
    assert refusal_of(limits, request_of("r", 10, 20, **options), 50.0).retry_after_s == CONCURRENCY_RETRY_S


def test_tenants_do_not_share_limits() -> None:
    limits = TenantLimits()
    assert num_admitted(limits, 3, 0.0, name="a", requests_per_minute=2) == 2
    assert num_admitted(limits, 3, 0.0, name="b", requests_per_minute=2) == 2


def test_changed_limits_hold_for_the_next_request() -> None:
    limits = TenantLimits()
    assert num_admitted(limits, 9, 0.0, requests_per_minute=5) == 5
    assert num_admitted(limits, 9, 0.0, requests_per_minute=9) == 0
    assert num_admitted(limits, 9, 30.0, requests_per_minute=8) == 4
    assert num_admitted(limits, 9, 30.0) == 9


def test_clock_that_goes_back_refills_nothing_twice() -> None:
    limits = TenantLimits()
    assert num_admitted(limits, 6, 60.0, requests_per_minute=6) == 6
    assert num_admitted(limits, 6, 10.0, requests_per_minute=6) == 0
    assert num_admitted(limits, 6, 70.0, requests_per_minute=6) == 1


def test_100_000_labels_are_forgotten_after_a_minute() -> None:
    limits = TenantLimits()
    for number in range(100_000):
        request = request_of(str(number), name=f"label-{number}", tokens_per_minute=60, max_concurrency=1)
        limits.admit(request, number / 10)
        limits.close(str(number))
    assert limits.num_tenants < 200
    assert limits.num_live == 0


def test_labels_without_limits_are_not_remembered_at_all() -> None:
    limits = TenantLimits()
    assert num_admitted(limits, 10, 0.0, name="free") == 10
    assert (limits.num_tenants, limits.num_live) == (0, 0)


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_every_history_agrees_with_a_plain_account(rng: random.Random) -> None:
    play_limits(rng)


# ---- in the scheduler


def test_request_that_finds_the_queue_full_uses_up_nothing() -> None:
    scheduler = Scheduler(small_config(limits=(24, 1, 60)))
    scheduler.submit(request_of("first", requests_per_minute=2), 0.0)
    with pytest.raises(QueueFull):
        scheduler.submit(request_of("second", requests_per_minute=2), 0.0)
    scheduler.abort("first", 0.0)
    scheduler.submit(request_of("second", requests_per_minute=2), 0.0)
    with pytest.raises(RateLimited):
        scheduler.abort("second", 0.0)
        scheduler.submit(request_of("third", requests_per_minute=2), 0.0)
    assert scheduler.limits.num_refused == 1


def test_aborted_request_gives_back_what_its_samples_did_not_generate() -> None:
    world = World(small_config(num_blocks=12))
    limits = {"tokens_per_minute": 24}
    assert world.submit(request_of("r", 2, 10, num_samples=2, ignore_eos=True, **limits))
    for _ in range(3):
        world.step()
    num_generated = len(world.log_of("r", 0).token_ids) + len(world.log_of("r", 1).token_ids)
    assert num_generated == 5
    world.abort("r")
    num_left = 24 - 2 - num_generated
    assert not world.submit(request_of("large", num_left, 1, **limits))
    assert world.submit(request_of("fits", num_left - 1, 1, **limits))


@pytest.mark.parametrize("is_broken", [True, False], ids=["failed", "finished"])
def test_place_is_free_again_when_the_last_sample_has_ended(is_broken: bool) -> None:
    world = World(small_config(num_blocks=12, max_num_batched_tokens=16))
    request = request_of("r", 2, 3, num_samples=2, ignore_eos=True, max_concurrency=1)
    assert world.submit(request)
    world.planned()
    world.finish_step(frozenset({0} if is_broken else ()))
    assert not world.submit(request_of("other", max_concurrency=1))
    while world.live:
        world.step()
    assert world.submit(request_of("other", max_concurrency=1))
