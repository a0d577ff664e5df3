"""Seeded random histories of several tenants: backlogs without end, pools that are too small, limits a minute."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from batching.sequence import SequenceStatus
from batching.tenant_limits import TenantLimits
from contracts.errors import InvalidValue, RateLimited
from contracts.generation import GenerationRequest, Tenant
from tests.batching.core_tenant_invariants import service_of
from tests.batching.core_world import World, small_config, small_request
from tests.batching.rate_oracle import RateOracle

NUM_BACKLOGGED = 4
NUM_UNDER_PRESSURE = 8
NUM_LIMITED = 4
NUM_LIMIT_CALLS = 80
NUM_QUANTA = 3
"""A history is as long as it takes to serve each tenant this many: what is unfair would show by then."""
MAX_TOKENS = 6
MAX_PROMPT_LEN = 6


def tenant_battery() -> list[Callable[[], object]]:
    """What every mutant must fail somewhere, and the core must pass."""
    backlogged = [partial(play_backlogged, seed) for seed in range(NUM_BACKLOGGED)]
    pressed = [partial(play_tenants_under_pressure, seed) for seed in range(NUM_UNDER_PRESSURE)]
    return [*backlogged, *pressed, *(partial(play_limits, random.Random(seed)) for seed in range(NUM_LIMITED))]


def play_backlogged(seed: int) -> None:
    """Keep every tenant waiting all the time, each with requests of its own kind: their service stays close.

    A quantum is what one tenant can be ahead by: a prompt, and the output of all sequences that run, by its weight.
    """
    rng = random.Random(seed)
    max_num_seqs = rng.randint(1, 4)
    world = World(
        small_config(
            num_blocks=rng.randint(14, 24),
            block_size=rng.choice([1, 2]),
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=rng.randint(4, 16),
            limits=(24, 100, 1000),
        )
    )
    tenants = [Tenant(name=name, weight=rng.choice([0.5, 1.0, 1.0, 2.0])) for name in "abc"[: rng.randint(2, 3)]]
    sizes = [(rng.randint(1, MAX_PROMPT_LEN), rng.randint(1, MAX_TOKENS)) for _ in tenants]
    quantum = (MAX_PROMPT_LEN + max_num_seqs * MAX_TOKENS) / min(tenant.weight for tenant in tenants)
    gaps = {(first.name, second.name): (0.0, 0.0) for first in tenants for second in tenants}
    number = 0
    service = dict.fromkeys("abc"[: len(tenants)], 0.0)
    while min(service.values()) <= NUM_QUANTA * quantum:
        for tenant, (prompt_len, max_tokens) in zip(tenants, sizes, strict=True):
            while _num_waiting(world, tenant) <= max_num_seqs:
                number += 1
                prompt = [rng.randint(0, 1) for _ in range(prompt_len)]
                world.admit(
                    f"r{number}", prompt, max_tokens=max_tokens, tenant=tenant, num_samples=rng.choice([1, 1, 2])
                )
        world.step()
        service |= service_of(world.logs.values())
        for pair, (low, high) in gaps.items():
            gap = service[pair[0]] - service[pair[1]]
            gaps[pair] = (min(low, gap), max(high, gap))
            assert gaps[pair][1] - gaps[pair][0] <= 2 * quantum, f"the service of {pair} differs by too much"


def _num_waiting(world: World, tenant: Tenant) -> int:
    waiting = (log for log in world.live if log.sequence.status is SequenceStatus.WAITING)
    return sum(log.request.tenant.name == tenant.name for log in waiting)


def play_tenants_under_pressure(seed: int) -> World:
    """A pool that holds about one of the long requests, an old backlog of one tenant, and others that come later."""
    rng = random.Random(seed)
    world = World(
        small_config(
            num_blocks=rng.randint(11, 16),
            block_size=1,
            max_num_seqs=rng.randint(4, 7),
            max_num_batched_tokens=64,
            max_prefill_tokens_while_decoding=64,
            enable_prefix_caching=False,
            limits=(24, 60, 1000),
        )
    )
    for number in range(10):
        _admit_long(world, rng, f"old{number}", Tenant(name="old"))
    for number in range(16):
        world.step()
        _admit_long(world, rng, f"new{number}", Tenant(name=rng.choice(["one", "two", "three"])))
    world.drain()
    return world


def _admit_long(world: World, rng: random.Random, request_id: str, tenant: Tenant) -> None:
    world.advance(0.1)
    world.admit(request_id, [rng.randint(0, 1)], max_tokens=rng.choice([4, 9, 10, 10]), tenant=tenant)


def play_limits(rng: random.Random) -> int:
    """Requests come and end at any time, some exactly when they were told to come back; returns how many came in."""
    limits, oracle, now_s, wait_s = TenantLimits(), RateOracle(), 0.0, 0.0
    tenants = [_limited_tenant(rng, name) for name in "abc"]
    live: list[GenerationRequest] = []
    num_admitted = 0
    for number in range(NUM_LIMIT_CALLS):
        now_s += rng.choice([0.0, 0.0, 0.25, 1.0, 7.5, 90.0, wait_s])
        wait_s = 0.0
        if live and rng.random() < 0.4:
            _end_request(limits, oracle, live.pop(rng.randrange(len(live))), rng, now_s)
            continue
        request = small_request(
            str(number),
            [0] * rng.randint(1, 6),
            max_tokens=rng.randint(1, 8),
            num_samples=rng.choice([1, 1, 3]),
            tenant=rng.choice(tenants),
        )
        expected, refusal = oracle.expected_refusal(request, now_s), None
        try:
            limits.admit(request, now_s)
        except (InvalidValue, RateLimited) as error:
            refusal = error
        assert type(refusal) is (expected or type(None)), f"{refusal!r} instead of {expected}"
        if isinstance(refusal, RateLimited):
            oracle.check_wait(request, now_s, refusal.retry_after_s)
            wait_s = refusal.retry_after_s or 0.0
        elif refusal is None:
            oracle.admitted(request, now_s)
            live.append(request)
            num_admitted += 1
    return num_admitted


def _limited_tenant(rng: random.Random, name: str) -> Tenant:
    return Tenant(
        name=name,
        requests_per_minute=rng.choice([None, 1, 3, 7, 60]),
        tokens_per_minute=rng.choice([None, 20, 33, 1000]),
        max_concurrency=rng.choice([None, None, 1, 4]),
    )


def _end_request(
    limits: TenantLimits, oracle: RateOracle, request: GenerationRequest, rng: random.Random, now_s: float
) -> None:
    num_generated = [rng.randint(0, request.sampling.max_tokens) for _ in range(request.num_samples)]
    for num_tokens in num_generated:
        limits.use(request.request_id, num_tokens)
    limits.close(request.request_id)
    oracle.ended(request, sum(num_generated), now_s)
