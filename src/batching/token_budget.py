"""How many tokens the next step may compute: what the settings allow, and for a while less after memory ran out."""

from __future__ import annotations

from batching.scheduler_config import SchedulerConfig

NUM_GOOD_STEPS = 64
"""Steps without running out of memory after which a lowered budget is doubled."""


class TokenBudget:
    """The token budget of a step. Owner: the Scheduler, which tells it of every step.

    A step that ran out of memory halves it: to half of what that step had, so that the next one is smaller whatever
    the settings allow, but not below one block. Decodes are never held back: the scheduler plans one token for each.
    """

    def __init__(self) -> None:
        self._lowered: int | None = None
        self._num_good_steps = 0
        self.num_consecutive_oom = 0
        """Steps in a row, up to the last one, that ran out of memory; an idle moment ends the row."""

    def num_tokens(self, config: SchedulerConfig) -> int:
        """Most tokens of the next step."""
        if self._lowered is None:
            return config.max_num_batched_tokens
        return min(self._lowered, config.max_num_batched_tokens)

    def observe(self, num_tokens: int, config: SchedulerConfig, *, was_out_of_memory: bool) -> None:
        """Learn from a step of `num_tokens` tokens."""
        if was_out_of_memory:
            self.num_consecutive_oom += 1
            self._num_good_steps = 0
            self._lowered = max(min(num_tokens, self.num_tokens(config)) // 2, config.block_size)
            return
        self.num_consecutive_oom = 0
        self._num_good_steps += 1
        if self._lowered is not None and self._num_good_steps >= NUM_GOOD_STEPS:
            self._num_good_steps = 0
            doubled = 2 * self._lowered
            self._lowered = doubled if doubled < config.max_num_batched_tokens else None

    def rest(self) -> None:
        """Nothing is live: what was short is free again, and only new work can tell whether it suffices."""
        self.num_consecutive_oom = 0
