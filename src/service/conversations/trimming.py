"""How much of a conversation's beginning a prompt leaves out; pure arithmetic on turns and their lengths.

What is left out moves in large steps: the turns that stay keep their place in the prompt for many turns, so that their
prefix blocks are found again. Cutting one turn each time would move everything behind the system message each time.
What is left out of a prompt stays stored.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

STEPS_PER_LIMIT = 4
"""Once a limit is passed, a quarter of it is left out at a time."""


def num_turns_over(num_turns: int, max_turns: int) -> int:
    """Turns to leave out so that at most `max_turns` stay, in steps of a quarter of them."""
    return _in_steps(num_turns - max_turns, max(1, max_turns // STEPS_PER_LIMIT))


def window_step_len(window_len: int) -> int:
    """Tokens that one step leaves out of a prompt that does not fit its window."""
    return max(1, window_len // STEPS_PER_LIMIT)


def num_steps_over(turn_lens: Sequence[int], room_len: int, step_len: int) -> int:
    """Fewest steps after which the turns that stay have at most `room_len` tokens, or none stay."""

    def fits(num_steps: int) -> bool:
        return sum(turn_lens[num_turns_within(turn_lens, num_steps, step_len) :]) <= room_len

    return bisect_left(range(max_steps(turn_lens, step_len)), True, key=fits)


def max_steps(turn_lens: Sequence[int], step_len: int) -> int:
    """Steps after which no turn stays."""
    return -(-sum(turn_lens) // step_len)


def num_turns_within(turn_lens: Sequence[int], num_steps: int, step_len: int) -> int:
    """Whole turns that `num_steps` steps leave out: those that begin within the tokens that the steps span."""
    span_len, begin_len = num_steps * step_len, 0
    for index, turn_len in enumerate(turn_lens):
        if begin_len >= span_len:
            return index
        begin_len += turn_len
    return len(turn_lens) if span_len else 0


def _in_steps(excess: int, step: int) -> int:
    """The least multiple of the step that is no less than the excess."""
    return 0 if excess <= 0 else -(-excess // step) * step
