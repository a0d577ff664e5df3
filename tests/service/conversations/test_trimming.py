"""What a prompt leaves out of a conversation's beginning: enough, never too much, and seldom."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from service.conversations.trimming import (
    STEPS_PER_LIMIT,
    max_steps,
    num_steps_over,
    num_turns_over,
    num_turns_within,
    window_step_len,
)

LIMITS = st.integers(1, 1000)
TURN_LENS = st.lists(st.integers(1, 300), max_size=30)


def steps_by_counting(turn_lens: list[int], room_len: int, step_len: int) -> int:
    """The reference: one step after the other, each turn looked at by itself."""
    for num_steps in itertools.count():
        begins = itertools.accumulate(turn_lens, initial=0)
        kept = [length for begin, length in zip(begins, turn_lens, strict=False) if begin >= num_steps * step_len]
        if sum(kept) <= room_len or not kept:
            return num_steps
    raise AssertionError


@given(TURN_LENS, st.integers(0, 2000), st.integers(1, 400))
def test_steps_are_those_of_the_reference(turn_lens: list[int], room_len: int, step_len: int) -> None:
    found = num_steps_over(turn_lens, room_len, step_len)
    wanted = steps_by_counting(turn_lens, room_len, step_len)
    assert num_turns_within(turn_lens, found, step_len) == num_turns_within(turn_lens, wanted, step_len)


@given(TURN_LENS, st.integers(1, 400))
def test_all_steps_leave_nothing(turn_lens: list[int], step_len: int) -> None:
    assert num_turns_within(turn_lens, max_steps(turn_lens, step_len), step_len) == len(turn_lens)
    assert num_turns_within(turn_lens, 0, step_len) == 0


@given(TURN_LENS, st.integers(0, 2000), st.integers(1, 400), st.integers(1, 300))
def test_another_turn_never_brings_an_old_one_back(
    turn_lens: list[int], room_len: int, step_len: int, new_len: int
) -> None:
    def num_out(lens: list[int]) -> int:
        return num_turns_within(lens, num_steps_over(lens, room_len, step_len), step_len)

    assert num_out([*turn_lens, new_len]) >= min(num_out(turn_lens), len(turn_lens))


@given(LIMITS, st.integers(0, 5000))
def test_turns_that_stay_are_within_the_limit_and_more_than_most_of_it(max_turns: int, num_turns: int) -> None:
    num_kept = num_turns - num_turns_over(num_turns, max_turns)
    assert num_kept <= max_turns
    assert num_kept > min(num_turns, max_turns) - max(1, max_turns // STEPS_PER_LIMIT) or num_kept == num_turns
    assert num_kept >= min(num_turns, 1)


@given(LIMITS)
def test_cut_moves_once_in_a_quarter_of_the_limit(max_turns: int) -> None:
    cuts = [num_turns_over(num_turns, max_turns) for num_turns in range(max_turns, 3 * max_turns)]
    moves = sum(before != after for before, after in itertools.pairwise(cuts))
    assert moves <= 2 * max_turns // max(1, max_turns // STEPS_PER_LIMIT) + 1


def test_step_is_never_nothing() -> None:
    assert [window_step_len(length) for length in (1, 3, 4, 100)] == [1, 1, 1, 25]
