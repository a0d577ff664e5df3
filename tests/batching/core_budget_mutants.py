"""Seeded bugs of the token budget after a step that ran out of memory, and of the repair of wrong books."""

from __future__ import annotations

from typing import Any

from batching.block_pool import BlockPool
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import ScheduledSequence
from batching.tenant_limits import TenantLimits
from batching.token_budget import TokenBudget
from tests.batching.core_mutant import Method, Mutant, always


def shortage_is_not_noticed(observe: Method) -> Method:
    return lambda self, num_tokens, config, **_: observe(self, num_tokens, config, was_out_of_memory=False)


def step_is_not_looked_at(observe: Method) -> Method:
    def broken(self: TokenBudget, num_tokens: int, config: SchedulerConfig, **options: Any) -> None:
        observe(self, config.max_num_batched_tokens, config, **options)

    return broken


def budget_falls_below_a_block(observe: Method) -> Method:
    def broken(self: TokenBudget, num_tokens: int, config: SchedulerConfig, *, was_out_of_memory: bool) -> None:
        before = self.num_tokens(config)
        observe(self, num_tokens, config, was_out_of_memory=was_out_of_memory)
        if was_out_of_memory:
            self._lowered = min(num_tokens, before) // 2

    return broken


def budget_never_recovers(observe: Method) -> Method:
    def broken(self: TokenBudget, num_tokens: int, config: SchedulerConfig, *, was_out_of_memory: bool) -> None:
        lowered = self._lowered
        observe(self, num_tokens, config, was_out_of_memory=was_out_of_memory)
        if not was_out_of_memory:
            self._lowered = lowered

    return broken


def budget_recovers_at_once(observe: Method) -> Method:
    def broken(self: TokenBudget, num_tokens: int, config: SchedulerConfig, *, was_out_of_memory: bool) -> None:
        observe(self, num_tokens, config, was_out_of_memory=was_out_of_memory)
        if not was_out_of_memory:
            self._lowered = None

    return broken


def good_steps_before_count(observe: Method) -> Method:
    def broken(self: TokenBudget, *args: Any, was_out_of_memory: bool) -> None:
        num_good_steps = self._num_good_steps
        observe(self, *args, was_out_of_memory=was_out_of_memory)
        if was_out_of_memory:
            self._num_good_steps = num_good_steps

    return broken


def row_counts_for_ever(observe: Method) -> Method:
    def broken(self: TokenBudget, *args: Any, was_out_of_memory: bool) -> None:
        in_a_row = self.num_consecutive_oom
        observe(self, *args, was_out_of_memory=was_out_of_memory)
        self.num_consecutive_oom = in_a_row + was_out_of_memory

    return broken


def decodes_are_held_back(decodes: Method) -> Method:
    def broken(self: Scheduler) -> list[ScheduledSequence]:
        rows: list[ScheduledSequence] = decodes(self)
        return rows[: self.token_budget.num_tokens(self.config)]

    return broken


def repair_keeps_the_queue(repair: Method) -> Method:
    def broken(self: Scheduler) -> str | None:
        num_tokens = self.waiting.num_tokens
        fault: str | None = repair(self)
        self.waiting.num_tokens = num_tokens
        return fault

    return broken


def repair_forgets_broken_blocks(repair: Method) -> Method:
    def broken(self: Scheduler) -> str | None:
        fault: str | None = repair(self)
        self._broken._to_clear = []
        return fault

    return broken


REPAIR_MUTANTS = [
    Mutant("wrong_books_are_not_noticed", Scheduler, "_idle_fault", always(None)),
    Mutant("wrong_pool_is_not_noticed", BlockPool, "idle_fault", always(None)),
    Mutant("wrong_pool_is_kept", BlockPool, "reset", always(None)),
    Mutant("grants_are_kept", TenantLimits, "close_all", always(None)),
    Mutant("queue_is_kept", Scheduler, "repair_idle", repair_keeps_the_queue),
    Mutant("broken_blocks_are_forgotten", Scheduler, "repair_idle", repair_forgets_broken_blocks),
]
BUDGET_MUTANTS = [
    Mutant("shortage_is_not_noticed", TokenBudget, "observe", shortage_is_not_noticed),
    Mutant("step_that_ran_out_is_not_looked_at", TokenBudget, "observe", step_is_not_looked_at),
    Mutant("budget_falls_below_a_block", TokenBudget, "observe", budget_falls_below_a_block),
    Mutant("budget_never_recovers", TokenBudget, "observe", budget_never_recovers),
    Mutant("budget_recovers_at_once", TokenBudget, "observe", budget_recovers_at_once),
    Mutant("good_steps_before_a_shortage_count", TokenBudget, "observe", good_steps_before_count),
    Mutant("shortages_in_a_row_count_for_ever", TokenBudget, "observe", row_counts_for_ever),
    Mutant("shortages_outlive_idling", TokenBudget, "rest", always(None)),
    Mutant("decodes_are_held_back", Scheduler, "_schedule_decodes", decodes_are_held_back),
]
