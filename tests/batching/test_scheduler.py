"""What the scheduler promises, one behaviour at a time."""

from __future__ import annotations

from tests.batching.core_world import World, small_config, small_request


def test_blocks_of_a_sequence_aborted_during_a_failed_step_are_cleared() -> None:
    world = World(small_config())
    world.submit(small_request("a", [0, 1, 0], max_tokens=4))
    world.begin_step()
    world.abort("a")
    world.fail_step()
    world.submit(small_request("b", [1, 1, 0], max_tokens=2))
    plan = world.begin_step()
    assert plan is not None
    assert set(plan.blocks_to_clear) >= {0, 1}


def test_broken_block_shared_with_another_sequence_is_cleared_once_that_one_ends() -> None:
    world = World(small_config(max_num_batched_tokens=2))
    scheduler = world.scheduler
    world.submit(small_request("a", [0, 1, 0, 1, 0], max_tokens=4))
    world.step()
    world.step()
    world.submit(small_request("b", [0, 1, 0, 1, 1], max_tokens=4, ignore_eos=True))
    world.begin_step()
    world.finish_step(frozenset({0}))
    shared = scheduler._running[0].block_table.block_ids[:2]
    world.abort("b")
    assert set(shared) <= set(scheduler._blocks_to_clear)
