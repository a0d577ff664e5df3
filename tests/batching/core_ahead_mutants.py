"""Seeded bugs of planning one step ahead."""

from __future__ import annotations

from batching import scheduler as scheduler_module
from batching.block_table import BlockTable
from batching.scheduler import Scheduler
from batching.sequence import Sequence
from batching.step import ScheduledSequence, SchedulerOutput
from batching.steps_in_flight import StepsInFlight
from tests.batching.core_mutant import Method, Mutant, always


def last_token_is_not_the_last(_: property) -> property:
    """A step ahead computes a token for a sequence that is known to end before it."""

    def broken(self: Sequence) -> int:
        return self.next_len if self.num_unplanned_tokens == 1 and self.next_len > self.num_prompt_tokens else 0

    return property(broken)


def awaited_token_has_no_slot(_: property) -> property:
    return property(lambda self: self.num_tokens)


def blocks_are_free_after_the_oldest_step(_: Method) -> Method:
    def broken(self: StepsInFlight, block_ids: list[int]) -> None:
        self._held[0] += block_ids

    return broken


def newest_step_ends_first(_: Method) -> Method:
    def broken(self: StepsInFlight) -> tuple[SchedulerOutput, list[int]]:
        return self._plans.pop(), self._held.pop()

    return broken


def planned_tokens_are_planned_again(row: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence, num_tokens: int) -> ScheduledSequence:
        made: ScheduledSequence = row(self, sequence, num_tokens)
        sequence.num_planned_tokens = 0
        return made

    return broken


def table_of_a_plan_is_emptied(_: Method) -> Method:
    def broken(self: BlockTable) -> list[int]:
        block_ids = self.block_ids.copy()
        self.block_ids.clear()
        self.num_registered = 0
        return block_ids

    return broken


AHEAD_MUTANTS = [
    Mutant("table_of_a_plan_is_emptied", BlockTable, "clear", table_of_a_plan_is_emptied),
    Mutant("last_token_is_not_the_last", Sequence, "decode_len", last_token_is_not_the_last),
    Mutant("awaited_token_has_no_slot", Sequence, "next_len", awaited_token_has_no_slot),
    Mutant("blocks_are_free_after_the_oldest_step", StepsInFlight, "hold", blocks_are_free_after_the_oldest_step),
    Mutant("newest_step_ends_first", StepsInFlight, "end", newest_step_ends_first),
    Mutant("planned_tokens_are_planned_again", Scheduler, "_row", planned_tokens_are_planned_again),
    Mutant("steps_ahead_preempt", scheduler_module, "all_fit", always(True)),
    Mutant("nothing_is_planned_ahead", scheduler_module, "all_fit", always(False)),
]
