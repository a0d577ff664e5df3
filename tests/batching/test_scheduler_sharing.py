"""What the scheduler promises about blocks that several sequences use, and about broken numbers in them."""

from __future__ import annotations

import pytest

from batching.sequence import SequenceStatus
from contracts.generation import FinishReason
from tests.batching.core_world import World, small_config

# ---- shared blocks


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_samples_share_the_full_blocks_of_the_prompt(enable_prefix_caching: bool) -> None:
    world = World(small_config(max_num_batched_tokens=16, enable_prefix_caching=enable_prefix_caching))
    world.admit("a", [0, 1, 0, 1, 0], num_samples=3)
    world.step()
    world.step()
    first, second, third = (log.sequence.block_table.block_ids for log in world.live)
    assert first[:2] == second[:2] == third[:2]
    assert len({first[2], second[2], third[2]}) == 3


def test_samples_wait_until_the_prompt_is_computed() -> None:
    world = World(small_config(max_num_batched_tokens=2))
    world.admit("a", [0, 1, 0, 1, 0], num_samples=2)
    world.step()
    assert world.log_of("a", 1).status is SequenceStatus.PARKED
    world.step()
    world.step()
    assert world.log_of("a", 1).status is SequenceStatus.WAITING


def test_samples_go_on_when_the_first_one_fails() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0], num_samples=2, max_tokens=2)
    world.planned()
    world.finish_step(frozenset({0}))
    assert world.log_of("a").finish_reason is FinishReason.ERROR
    world.drain()
    assert world.log_of("a", 1).finish_reason is FinishReason.LENGTH


def test_samples_differ() -> None:
    world = World(small_config(num_blocks=12))
    world.admit("a", [0, 1, 0], num_samples=2, max_tokens=8)
    world.drain()
    assert world.log_of("a", 0).token_ids != world.log_of("a", 1).token_ids


@pytest.mark.parametrize(("prompt", "num_cached"), [([0, 1, 0, 1, 0], 4), ([0, 1, 0, 1], 2), ([0, 1, 1, 1, 1], 2)])
def test_prefix_is_found_again_but_the_last_token_is_always_computed(prompt: list[int], num_cached: int) -> None:
    world = World(small_config())
    world.admit("first", [0, 1, 0, 1, 0], max_tokens=1)
    world.drain()
    world.admit("second", prompt, max_tokens=1)
    world.drain()
    assert world.log_of("second").num_cached_tokens == num_cached


@pytest.mark.parametrize(("salt", "is_on"), [("other", True), ("", False)], ids=["other_salt", "cache_off"])
def test_prefix_is_not_shared_with_another_salt_or_without_the_cache(salt: str, is_on: bool) -> None:
    world = World(small_config(enable_prefix_caching=is_on))
    world.admit("first", [0, 1, 0, 1, 0], max_tokens=1)
    world.drain()
    world.admit("second", [0, 1, 0, 1, 0], max_tokens=1, cache_salt=salt)
    world.drain()
    assert world.log_of("second").num_cached_tokens == 0


# ---- broken numbers


def test_failed_row_fails_alone() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0])
    world.admit("b", [1, 1, 0])
    world.planned()
    world.finish_step(frozenset({0}))
    assert world.log_of("a").finish_reason is FinishReason.ERROR
    world.drain()
    assert world.log_of("b").finish_reason is FinishReason.LENGTH


def test_blocks_of_a_failed_row_are_not_found_again_and_cleared_first() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0, 1, 0])
    world.planned()
    world.finish_step(frozenset({0}))
    world.admit("b", [0, 1, 0, 1, 0])
    plan = world.planned()
    assert set(plan.blocks_to_clear) == {0, 1, 2}
    assert plan.sequences[0].start == 0


def test_chunk_that_breaks_fails_at_once_and_its_blocks_are_not_found() -> None:
    world = World(small_config(max_num_batched_tokens=4))
    world.admit("a", [0, 1, 0, 1, 0, 1])
    assert not world.planned().sequences[0].is_sampling
    world.finish_step(frozenset({0}))
    assert world.log_of("a").finish_reason is FinishReason.ERROR
    world.admit("b", [0, 1, 0, 1, 0, 1])
    assert world.planned().sequences[0].start == 0


def test_failed_step_ends_its_rows_and_spares_the_queue() -> None:
    world = World(small_config(max_num_seqs=1))
    world.admit("a", [0, 1, 0], max_tokens=2)
    world.admit("b", [0, 1, 0], max_tokens=2)
    world.planned()
    world.fail_step()
    assert world.log_of("a").finish_reason is FinishReason.ERROR
    world.drain()
    assert world.log_of("b").finish_reason is FinishReason.LENGTH


def test_blocks_of_a_sequence_aborted_during_a_failed_step_are_cleared() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0])
    world.planned()
    world.abort("a")
    world.fail_step()
    world.admit("b", [1, 1, 0])
    assert set(world.planned().blocks_to_clear) >= {0, 1}


def test_broken_block_shared_with_another_sequence_is_cleared_once_that_one_ends() -> None:
    world = World(small_config(max_num_batched_tokens=2))
    scheduler = world.scheduler
    world.admit("a", [0, 1, 0, 1, 0])
    world.step()
    world.step()
    world.admit("b", [0, 1, 0, 1, 1])
    world.planned()
    world.finish_step(frozenset({0}))
    shared = world.log_of("b").sequence.block_table.block_ids[:2]
    world.abort("b")
    assert set(shared) <= set(scheduler._broken._to_clear)
