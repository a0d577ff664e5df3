"""The token budget of the next step, worked out again from all steps so far."""

from __future__ import annotations

from batching.scheduler_config import SchedulerConfig

GOOD_STEPS_TO_DOUBLE = 64


def token_budget(config: SchedulerConfig, steps: list[tuple[int, bool]]) -> int:
    """`steps` are (tokens, ran out of memory) of each step since the start."""
    most = config.max_num_batched_tokens
    budget = most
    num_good = 0
    for num_tokens, was_out_of_memory in steps:
        if was_out_of_memory:
            half = min(budget, num_tokens) // 2
            budget = min(most, max(half, config.block_size))
            num_good = 0
        else:
            num_good += 1
            if num_good % GOOD_STEPS_TO_DOUBLE == 0:
                budget = min(most, 2 * budget)
    return budget


def num_consecutive_oom(steps: list[tuple[int, bool]]) -> int:
    """How many of the last steps ran out of memory, one after the other."""
    flags = [was_out_of_memory for _, was_out_of_memory in steps]
    return next((back for back, flag in enumerate(reversed(flags)) if not flag), len(flags))
