"""After a step that ran out of memory the next ones are smaller, and slowly grow again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.scheduler_config import SchedulerConfig
from batching.token_budget import NUM_GOOD_STEPS, TokenBudget
from tests.batching.budget_oracle import num_consecutive_oom, token_budget
from tests.batching.core_world import World, small_config

CONFIG = small_config(block_size=16, max_num_batched_tokens=1000)


def after(*steps: tuple[int, bool], config: SchedulerConfig = CONFIG) -> TokenBudget:
    budget = TokenBudget()
    for num_tokens, was_out_of_memory in steps:
        budget.observe(num_tokens, config, was_out_of_memory=was_out_of_memory)
    return budget


def test_settings_decide_while_memory_lasts() -> None:
    assert after((1000, False), (7, False)).num_tokens(CONFIG) == 1000


@pytest.mark.parametrize(("num_tokens", "expected"), [(1000, 500), (600, 300), (33, 16), (4, 16)])
def test_next_step_has_half_of_the_one_that_ran_out_and_at_least_a_block(num_tokens: int, expected: int) -> None:
    assert after((num_tokens, True)).num_tokens(CONFIG) == expected


def test_budget_falls_until_it_fits() -> None:
    assert after((1000, True), (500, True), (250, True)).num_tokens(CONFIG) == 125


def test_budget_doubles_after_enough_good_steps_up_to_the_settings() -> None:
    good = [(100, False)] * NUM_GOOD_STEPS
    assert after((1000, True), (500, True), *good[1:]).num_tokens(CONFIG) == 250
    assert after((1000, True), (500, True), *good).num_tokens(CONFIG) == 500
    assert after((1000, True), (500, True), *good, *good).num_tokens(CONFIG) == 1000


def test_settings_below_a_block_still_bind() -> None:
    config = small_config(block_size=16, max_num_batched_tokens=4)
    assert after((4, True), config=config).num_tokens(config) == 4


def test_shortages_in_a_row_are_counted_until_a_step_fits() -> None:
    assert after((9, True), (9, False), (9, True), (9, True), (9, True)).num_consecutive_oom == 3
    assert after((9, True), (9, True), (9, False)).num_consecutive_oom == 0


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.integers(1, 1000), st.booleans()).map(lambda step: [step]),
            st.integers(60, 70).map(lambda count: [(10, False)] * count),
        ),
        max_size=20,
    )
)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_every_history_agrees_with_a_plain_account(steps: list[list[tuple[int, bool]]]) -> None:
    flat = [step for group in steps for step in group]
    budget = after(*flat)
    assert budget.num_tokens(CONFIG) == token_budget(CONFIG, flat)
    assert budget.num_consecutive_oom == num_consecutive_oom(flat)


# ---- in the scheduler


def test_prompt_is_computed_in_smaller_chunks_after_a_shortage() -> None:
    world = World(small_config(num_blocks=12, max_num_batched_tokens=8))
    world.admit("a", [0, 1] * 8, max_tokens=1)
    sizes = []
    for is_out_of_memory in (True, True, False, False):
        sizes.append(world.planned().num_tokens)
        world.finish_step(is_out_of_memory=is_out_of_memory)
    assert sizes == [8, 4, 2, 2]


def test_those_that_decode_go_on_when_the_budget_is_smaller_than_they_are() -> None:
    world = World(small_config(num_blocks=12, block_size=1, max_num_batched_tokens=8))
    for request_id in "abc":
        world.admit(request_id, [0], max_tokens=3, cache_salt=request_id)
    world.step()
    world.planned()
    world.finish_step(is_out_of_memory=True)
    plan = world.planned()
    assert (plan.num_decodes, world.scheduler.token_budget.num_tokens(world.config)) == (3, 1)


def test_nothing_is_lost_in_a_shortage() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0], max_tokens=4)
    world.admit("b", [1, 1], max_tokens=4)
    while world.live:
        world.step(is_out_of_memory=True)
    assert [len(log.token_ids) for log in world.logs.values()] == [4, 4]
    assert world.scheduler.counters.num_out_of_memory == len(world.steps)
