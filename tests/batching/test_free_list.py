"""What the free list promises: one tenant has a plain LRU list, several keep their parts of what is cached."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.free_list import CLAIM_S, FreeList
from contracts.generation import Tenant
from tests.batching.free_list_oracle import PlainFreeList, play_all

A, B = Tenant(name="a"), Tenant(name="b")
TWICE = Tenant(name="twice", weight=2.0)
NUM_BLOCKS = 24
BOUNDED = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def full_list(*parts: tuple[Tenant, int]) -> FreeList:
    """Nothing but cached blocks: so many of each tenant, in this order."""
    num_blocks = sum(num for _, num in parts)
    free = FreeList(num_blocks)
    block_ids = free.pop(num_blocks)
    for tenant, num in parts:
        free.add(block_ids[:num], tenant)
        del block_ids[:num]
    return free


def num_held(free: FreeList, tenant: Tenant) -> int:
    return list(free.cached_blocks().values()).count(tenant.name)


# ---- next to the plain list


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_random_calls_agree_with_the_plain_list(first_seed: int) -> None:
    assert play_all(range(first_seed, first_seed + 50)) > 50


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(1000, 4000, 300))
def test_many_random_calls_agree_with_the_plain_list(first_seed: int) -> None:
    assert play_all(range(first_seed, first_seed + 300), num_blocks=90) > 300


def call(free: FreeList | PlainFreeList, held: list[int], step: tuple[str, int, Tenant | None]) -> list[int]:
    """One call; `held` are the blocks that were handed out. Returns those that this one handed out."""
    kind, number, tenant = step
    if kind == "pop":
        return free.pop(number % (1 + NUM_BLOCKS - len(held)))
    if kind == "add":
        free.add(held[: number % (len(held) + 1)], tenant)
    elif kind == "wait":
        free.now_s += number * 25.0
    return []


STEPS = st.tuples(
    st.sampled_from(["pop", "pop", "add", "add", "wait"]),
    st.integers(0, 40),
    st.sampled_from([None, A, A, B, B, TWICE, Tenant(name="a", weight=0.5)]),
)


@BOUNDED
@given(steps=st.lists(STEPS, max_size=40))
def test_any_history_agrees_with_the_plain_list(steps: list[tuple[str, int, Tenant | None]]) -> None:
    free, plain, held = FreeList(NUM_BLOCKS), PlainFreeList(NUM_BLOCKS), list[int]()
    for step in steps:
        popped = call(free, held, step)
        assert popped == call(plain, held, step)
        held = [block_id for block_id in range(NUM_BLOCKS) if block_id not in free]
        assert len(free) + len(held) == NUM_BLOCKS
        assert free.num_cached == len(plain.cached)


# ---- one tenant


def call_lru(blocks: OrderedDict[int, bool], held: list[int], step: tuple[str, int, Tenant | None]) -> list[int]:
    """The same on one list for everybody: block id to whether it is cached, empty ones first."""
    kind, number, tenant = step
    if kind == "pop":
        return [blocks.popitem(last=False)[0] for _ in range(number % (1 + NUM_BLOCKS - len(held)))]
    for block_id in held[: number % (len(held) + 1)] if kind == "add" else []:
        blocks[block_id] = tenant is not None
        blocks.move_to_end(block_id, last=tenant is not None)
    return []


@BOUNDED
@given(steps=st.lists(STEPS, max_size=40))
def test_one_tenant_alone_has_a_plain_lru_list(steps: list[tuple[str, int, Tenant | None]]) -> None:
    free, blocks, held = FreeList(NUM_BLOCKS), OrderedDict.fromkeys(range(NUM_BLOCKS), False), list[int]()
    for kind, number, tenant in steps:
        step = (kind, number, tenant and A)
        assert call(free, held, step) == call_lru(blocks, held, step)
        assert list(free) == list(blocks)
        held = [block_id for block_id in range(NUM_BLOCKS) if block_id not in free]


# ---- several


@BOUNDED
@given(
    parts=st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.integers(1, 40)), min_size=1, max_size=6),
    num_popped=st.integers(1, 60),
)
def test_nobody_below_its_part_loses_a_block(parts: list[tuple[float, int]], num_popped: int) -> None:
    tenants = [Tenant(name=f"t{number}", weight=weight) for number, (weight, _) in enumerate(parts)]
    free = full_list(*((tenant, num) for tenant, (_, num) in zip(tenants, parts, strict=True)))
    for _ in range(min(num_popped, len(free))):
        before = {tenant: num_held(free, tenant) for tenant in tenants}
        per_weight = sum(before.values()) / sum(tenant.weight for tenant, num in before.items() if num)
        free.pop(1)
        losers = [tenant for tenant in tenants if num_held(free, tenant) < before[tenant]]
        assert [before[tenant] >= per_weight * tenant.weight * (1 - 1e-9) for tenant in losers] == [True]


def test_flood_stops_at_the_part_of_another() -> None:
    free = full_list((A, 50), (B, 50))
    for _ in range(1000):
        free.add(free.pop(3), B)
    assert num_held(free, A) >= 50 - 3


def test_small_cache_is_kept_whole() -> None:
    free = full_list((A, 20), (B, 80))
    for _ in range(1000):
        free.add(free.pop(7), B)
    assert num_held(free, A) == 20


def test_parts_follow_the_weights() -> None:
    free = full_list((A, 60), (TWICE, 60), (B, 0))
    for number in range(2000):
        free.add(free.pop(1), (A, TWICE)[number % 2])
    assert num_held(free, TWICE) in range(79, 82)


def test_many_at_once_take_a_sixteenth_too_much_at_most() -> None:
    free = full_list((A, 480), (B, 480))
    free.pop(480)
    assert min(num_held(free, A), num_held(free, B)) >= 240 * 15 / 16


def test_among_equals_the_least_recently_used_goes() -> None:
    free = full_list(*((Tenant(name=name), 1) for name in "dbca"))
    assert free.pop(4) == [0, 1, 2, 3]


@pytest.mark.parametrize(("pause_s", "num_left"), [(CLAIM_S, 20), (CLAIM_S + 1, 0)])
def test_part_of_a_tenant_that_is_gone_falls_to_the_others(pause_s: float, num_left: int) -> None:
    free = full_list((A, 20), (B, 30))
    free.now_s += pause_s
    for _ in range(20):
        free.add(free.pop(1), B)
    assert num_held(free, A) == num_left


def test_finding_one_block_again_renews_the_claim() -> None:
    free = full_list((A, 20), (B, 30))
    free.now_s += CLAIM_S
    free.remove(0)
    free.now_s += CLAIM_S
    free.add(free.pop(1), B)
    assert num_held(free, A) == 19


def test_forgotten_block_goes_next() -> None:
    free = full_list((A, 3))
    free.empty(2)
    assert free.pop(2) == [2, 0]


def test_flood_of_labels_is_forgotten_with_its_blocks() -> None:
    free = full_list((A, 10))
    for number in range(5000):
        free.add(free.pop(1), Tenant(name=f"label-{number}"))
    assert len(free._holders) <= 10
    assert len(free._queue) <= 2 * 10 + 64
    free.pop(10)
    assert not free._holders
