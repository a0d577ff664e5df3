"""A look at the scheduler says of every block, and of everyone who runs or waits, what the books say."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching import live_look
from batching.live_look import count_so_far, look_at_batch, look_at_blocks, look_at_queue
from batching.scheduler import Scheduler
from contracts.latencies import Histogram, Latencies
from contracts.live import CACHED, EMPTY, FIRST_HOLDER, LEAVING
from tests.batching.core_world import World, small_config


def cells_of(scheduler: Scheduler) -> list[int]:
    cells = array("H")
    cells.frombytes(look_at_blocks(scheduler)[0])
    return list(cells)


def cell_in_books(scheduler: Scheduler, block_id: int) -> int:
    """The same from reference counts, tables and the prefix cache's own search."""
    holders = [
        FIRST_HOLDER + place
        for place, sequence in enumerate(scheduler._running)
        if block_id in sequence.block_table.block_ids
    ]
    if holders or scheduler.pool.num_refs(block_id):
        return (holders or [LEAVING])[0]
    key = scheduler.pool._keys[block_id]
    return EMPTY if key is None else CACHED


def shared_in_books(scheduler: Scheduler) -> list[int]:
    tables = [sequence.block_table.block_ids for sequence in scheduler._running] + [scheduler._in_flight.held_block_ids]
    held = Counter(block_id for table in tables for block_id in table)
    return sorted(block_id for block_id, times in held.items() if times > 1)


def assert_as_in_books(world: World) -> None:
    scheduler = world.scheduler
    expected = [cell_in_books(scheduler, block_id) for block_id in range(scheduler.pool.num_blocks)]
    assert cells_of(scheduler) == expected
    assert look_at_blocks(scheduler)[1] == shared_in_books(scheduler)
    assert expected.count(EMPTY) + expected.count(CACHED) == scheduler.pool.num_free_blocks
    assert expected.count(CACHED) == scheduler.pool.num_cached_blocks


def test_fresh_pool_is_empty() -> None:
    world = World(small_config(num_blocks=8))
    assert cells_of(world.scheduler) == [EMPTY] * 8
    assert look_at_batch(world.scheduler, 0.0) == []
    assert look_at_queue(world.scheduler, 0.0) == []


def test_blocks_of_an_ended_request_are_cached() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0, 1, 0], max_tokens=1)
    world.drain()
    assert cells_of(world.scheduler).count(CACHED) == 2
    assert_as_in_books(world)


def test_shared_prefix_is_the_first_holders_and_marked() -> None:
    world = World(small_config(max_num_batched_tokens=16))
    world.admit("a", [0, 1, 0, 1, 0], num_samples=3)
    world.step()
    world.step()
    assert look_at_blocks(world.scheduler)[1] == [0, 1]
    assert cells_of(world.scheduler)[:2] == [FIRST_HOLDER, FIRST_HOLDER]
    assert_as_in_books(world)


def test_blocks_of_a_sequence_that_ended_during_a_step_are_leaving() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0])
    world.planned()
    world.abort("a")
    assert cells_of(world.scheduler).count(LEAVING) == 2
    assert_as_in_books(world)


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 3), st.sampled_from(["step", "abort", "begin", "nothing"])),
        min_size=1,
        max_size=8,
    )
)
def test_look_agrees_with_the_books_whatever_has_happened(story: list[tuple[int, int, str]]) -> None:
    world = World(small_config(num_blocks=10, limits=(24, 40, 400)))
    play: dict[str, Callable[[str], object]] = {
        "step": lambda request_id: world.step() if not world.plans else world.finish_step(),
        "abort": world.abort,
        "begin": lambda request_id: world.begin_step() if not world.plans else None,
        "nothing": lambda request_id: None,
    }
    for index, (length, num_samples, what) in enumerate(story):
        world.admit(f"r{index}", [0, 1] * length, num_samples=num_samples, max_tokens=1)
        play[what](f"r{index}")
        assert_as_in_books(world)


def test_everyone_who_runs_is_told_in_the_order_of_the_cells() -> None:
    world = World(small_config(max_num_batched_tokens=4, max_prefill_tokens_while_decoding=2))
    world.admit("a", [0, 1])
    world.step()
    world.admit("b", [1, 1, 0, 0, 1])
    world.step()
    first, second = look_at_batch(world.scheduler, 2.5)
    assert (first.request_id, first.is_decoding, first.num_prompt_tokens, first.num_output_tokens) == ("a", True, 2, 2)
    assert (second.request_id, second.is_decoding, second.num_computed_tokens) == ("b", False, 2)
    assert (first.num_blocks, first.max_tokens, first.age_s) == (2, 8, 2.5)


def test_those_who_wait_are_told_in_turn_and_no_more_than_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_look, "MAX_WAITING_TOLD", 2)
    world = World(small_config(max_num_seqs=1))
    world.admit("runs", [0])
    world.step()
    world.admit("later", [0], priority=5)
    world.admit("sooner", [0])
    world.admit("last", [0], priority=9)
    assert [one.request_id for one in look_at_queue(world.scheduler, 0.0)] == ["sooner", "later"]


def test_only_the_first_blocks_of_a_huge_pool_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_look, "MAX_CELLS", 3)
    world = World(small_config(max_num_batched_tokens=16))
    world.admit("a", [0, 1] * 4 + [0], num_samples=2, max_tokens=3)
    world.step()
    assert cells_of(world.scheduler) == [FIRST_HOLDER] * 3


def test_counters_are_the_schedulers_and_the_latencies_sums() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0], max_tokens=2)
    world.drain()
    latencies = Latencies(
        time_to_first_token_s=Histogram([1.0], [2, 1], 4.5), inter_token_s=Histogram([1.0], [3, 0], 0.5)
    )
    counted = count_so_far(world.scheduler, latencies)
    assert (counted.num_requests, counted.num_ended, counted.num_generated_tokens) == (1, 1, 2)
    assert (counted.first_token_s, counted.num_first_tokens) == (4.5, 3)
    assert (counted.inter_token_s, counted.num_inter_tokens) == (0.5, 3)
