"""The scheduler goes on, in order, and lets no prompt stall those who decode: R12, R32, R33."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.generation import FinishReason
from tests.batching.core_battery import play_under_pressure
from tests.batching.core_world import World, small_config

NUM_DECODERS = 16
MAX_PREFILL = 6


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_pool_of_one_or_two_requests_never_stands_still(first_seed: int) -> None:
    """R12, R33. Each step of each world computes a token while work exists (i14), runs the oldest on (i14), keeps the
    bound on steps until the first token and admits in order (i15). 10^4 of these: test_crowded_pools_never_stand_still.
    """
    worlds = [play_under_pressure(seed) for seed in range(first_seed, first_seed + 50)]
    logs = [log for world in worlds for log in world.logs.values()]
    assert {log.finish_reason for log in logs} == {FinishReason.LENGTH}
    assert 1 <= max(log.num_preemptions for log in logs) <= 3
    assert all(world.log_of("r0").num_preemptions == 0 for world in worlds)


@settings(max_examples=100, deadline=None)
@given(
    lens=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=8),
    num_blocks=st.integers(12, 24),
    budget=st.integers(1, 12),
)
def test_equals_get_their_first_token_in_order_of_arrival(
    lens: list[tuple[int, int]], num_blocks: int, budget: int
) -> None:
    """R33: the first token of a request never comes in an earlier step than that of one before it in the queue."""
    config = small_config(
        num_blocks=num_blocks, block_size=1, max_num_batched_tokens=budget, limits=(24, 20, 1000), max_num_seqs=4
    )
    world = World(config)
    for number, (prompt_len, max_tokens) in enumerate(lens):
        world.admit(f"r{number}", [0] * prompt_len, max_tokens=max_tokens, cache_salt=str(number))
        world.advance(0.001)
    first_step: dict[str, int] = {}
    step = 0
    while world.scheduler.has_work:
        world.step()
        step += 1
        for log in world.logs.values():
            if log.token_ids:
                first_step.setdefault(log.request.request_id, step)
    order = [first_step[f"r{number}"] for number in range(len(lens))]
    assert order == sorted(order)
    assert max(log.num_preemptions for log in world.logs.values()) <= 3


def decoding_world(num_decoders: int) -> World:
    """A world in which as many sequences decode."""
    config = small_config(
        num_blocks=400,
        max_num_seqs=num_decoders + 4,
        max_num_batched_tokens=64,
        max_prefill_tokens_while_decoding=MAX_PREFILL,
        limits=(200, 40, 2000),
    )
    world = World(config)
    for number in range(num_decoders):
        world.admit(f"d{number}", [number % 2, 1], max_tokens=60, cache_salt=str(number))
    world.step()
    return world


def test_long_prompt_beside_many_decoders_takes_its_share_of_each_step() -> None:
    """R32: every decoder gets a token in every step, and no step computes more than the cap beside them."""
    world = decoding_world(NUM_DECODERS)
    world.admit("long", [0] * 180, max_tokens=2)
    num_steps = 0
    while not world.log_of("long").token_ids:
        plan = world.planned()
        assert plan.num_decodes == NUM_DECODERS
        assert 1 <= plan.num_tokens - NUM_DECODERS <= MAX_PREFILL
        world.finish_step()
        num_steps += 1
    assert num_steps == 180 // MAX_PREFILL
    assert {len(log.token_ids) for log in world.live} == {1 + num_steps, 1}


def test_short_prompt_waits_for_the_long_ones_before_it_and_no_longer() -> None:
    """R32: the wait of a short request under long ones is what stands before it over the cap."""
    world = decoding_world(NUM_DECODERS)
    for number in range(2):
        world.admit(f"long{number}", [0] * 90, max_tokens=2, cache_salt=f"long{number}")
    world.admit("short", [1, 0], max_tokens=2)
    for number in range(2, 4):
        world.admit(f"long{number}", [0] * 90, max_tokens=2, cache_salt=f"long{number}")
    num_steps = 0
    while not world.log_of("short").token_ids:
        world.step()
        num_steps += 1
    assert num_steps <= -(-(2 * 90 + 2) // MAX_PREFILL) + 1
