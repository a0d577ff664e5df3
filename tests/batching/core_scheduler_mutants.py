"""Seeded bugs of the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from batching.block_table import chain_key, num_blocks_for
from batching.broken_blocks import BrokenBlocks
from batching.scheduler import Scheduler
from batching.sequence import Sequence, SequenceStatus
from batching.step import ScheduledSequence, SchedulerOutput, StepOutput
from batching.steps_in_flight import StepsInFlight
from contracts.errors import QuireError
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from tests.batching.core_mutant import Method, Mutant, always

# ---- scheduler: submit, abort, expire


def refused_request_leaves_a_trace(submit: Method) -> Method:
    def broken(self: Scheduler, request: GenerationRequest, now_s: float) -> None:
        try:
            submit(self, request, now_s)
        except QuireError:
            self.counters.num_requests += 1
            raise

    return broken


def samples_do_not_wait(submit: Method) -> Method:
    def broken(self: Scheduler, request: GenerationRequest, now_s: float) -> None:
        submit(self, request, now_s)
        for sequence in self._parked.pop(request.request_id, ()):
            self.waiting.push(sequence)

    return broken


def stop_ids_are(change_ids: Callable[[Sequence, Scheduler], frozenset[int]]) -> Callable[[Method], Method]:
    def change(new_sequence: Method) -> Method:
        def broken(self: Scheduler, *args: Any) -> Sequence:
            sequence: Sequence = new_sequence(self, *args)
            sequence.stop_ids = change_ids(sequence, self)
            return sequence

        return broken

    return change


def abort_ends_one_sample(_: Method) -> Method:
    def broken(self: Scheduler, request_id: str, now_s: float) -> list[GenerationDelta]:
        samples = list(self._requests.get(request_id, ()))[:1]
        return [self._finish(sequence, FinishReason.ABORT, now_s) for sequence in samples]

    return broken


def abort_is_lost_during_a_step(abort: Method) -> Method:
    return lambda self, request_id, now_s: [] if self.is_step_in_flight else abort(self, request_id, now_s)


def deltas_come_twice(method: Method) -> Method:
    def broken(self: Scheduler, *args: Any) -> list[GenerationDelta]:
        deltas: list[GenerationDelta] = method(self, *args)
        return deltas + [delta for delta in deltas if delta.finish_reason is not None]

    return broken


def expire_is_late(expire: Method) -> Method:
    return lambda self, now_s: expire(self, now_s - 1e-6)


# ---- scheduler: schedule


def prefill_budget_is_one_more(prefill: Method) -> Method:
    return lambda self, rows, budget: prefill(self, rows, budget + 1)


def prefill_cap_is_ignored(prefill: Method) -> Method:
    return lambda self, rows, budget: prefill(self, rows, self.config.max_num_batched_tokens - len(rows))


def one_sequence_too_many(admit: Method) -> Method:
    def broken(self: Scheduler, *args: Any) -> None:
        config = self.config
        self.config = msgspec.structs.replace(config, max_num_seqs=config.max_num_seqs + 1)
        admit(self, *args)
        self.config = config

    return broken


def preempts(choose: Callable[[list[Sequence], Sequence], Sequence]) -> Callable[[Method], Method]:
    def broken(self: Scheduler, sequence: Sequence) -> bool:
        missing = sequence.block_table.num_missing_blocks(sequence.num_tokens)
        while missing > self.pool.num_free_blocks:
            victim = choose(self._running, sequence)
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.block_table.block_ids += self.pool.allocate(missing)
        return True

    return lambda reserve: broken


def preempted_keeps_its_count(preempt: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> None:
        num_computed = sequence.num_computed_tokens
        preempt(self, sequence)
        sequence.num_computed_tokens = num_computed

    return broken


def preempted_is_lost(preempt: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> None:
        preempt(self, sequence)
        self.waiting.remove(sequence)

    return broken


def preempted_goes_to_the_tail(preempt: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> None:
        sequence.order = (sequence.order[0] + 100.0, sequence.seq_id)
        preempt(self, sequence)

    return broken


def hit_counts_one_token_more(place: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> bool:
        is_placed: bool = place(self, sequence)
        if sequence.num_computed_tokens and sequence.num_remaining_tokens > 1:
            sequence.num_computed_tokens += 1
        return is_placed

    return broken


def hit_is_computed_again(place: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> bool:
        is_placed: bool = place(self, sequence)
        sequence.num_computed_tokens = 0
        return is_placed

    return broken


def match_includes_the_last_token(_: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> bool:
        table = sequence.block_table
        table.extend_keys(sequence.token_ids, sequence.num_tokens)
        cached = self.pool.match(table.keys)
        num_new = table.num_missing_blocks(sequence.num_tokens) - len(cached)
        if num_new + self.pool.num_free_among(cached) + len(self._running) > self.pool.num_free_blocks:
            return False
        self.pool.acquire(cached)
        table.block_ids = cached + self.pool.allocate(num_new)
        table.num_registered = len(cached)
        sequence.num_computed_tokens = len(cached) * table.block_size
        return True

    return broken


def always_optimistic(_: Method) -> Method:
    return lambda self, sequence: len(self._running)


def row_is(change_row: Callable[[ScheduledSequence, Sequence], dict[str, Any]]) -> Callable[[Method], Method]:
    def change(make_row: Method) -> Method:
        def broken(self: Scheduler, sequence: Sequence, num_tokens: int) -> ScheduledSequence:
            row: ScheduledSequence = make_row(self, sequence, num_tokens)
            return msgspec.structs.replace(row, **change_row(row, sequence))

        return broken

    return change


def cleared_blocks_are_dropped(schedule: Method) -> Method:
    def broken(self: Scheduler, now_s: float) -> SchedulerOutput | None:
        self._broken._to_clear = []
        plan: SchedulerOutput | None = schedule(self, now_s)
        return plan

    return broken


# ---- scheduler: commit


def blocks_are_freed_before_the_step_is_over(end: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence, reason: FinishReason) -> None:
        steps, self._in_flight = self._in_flight, StepsInFlight()
        end(self, sequence, reason)
        self._in_flight = steps

    return broken


def held_blocks_are_never_freed(take: Method) -> Method:
    def broken(self: Scheduler) -> SchedulerOutput:
        for held in self._in_flight._held:
            held.clear()
        plan: SchedulerOutput = take(self)
        return plan

    return broken


def unfilled_blocks_are_registered(_: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> None:
        table, size = sequence.block_table, sequence.block_table.block_size
        for index in range(table.num_registered, num_blocks_for(sequence.num_computed_tokens, size)):
            tokens = sequence.token_ids[index * size : (index + 1) * size]
            table.keys[index:] = [chain_key(table.keys[index - 1] if index else table._root, tokens)]
            self.pool.register(table.block_ids[index], table.keys[index])
            table.num_registered = index + 1

    return broken


def blocks_are_registered_before_they_are_computed(register: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> None:
        num_computed, sequence.num_computed_tokens = sequence.num_computed_tokens, sequence.num_tokens
        register(self, sequence)
        sequence.num_computed_tokens = num_computed

    return broken


def token_is_appended_twice(append: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence, token_id: int, *args: Any) -> GenerationDelta:
        delta: GenerationDelta = append(self, sequence, token_id, *args)
        if sequence.status is SequenceStatus.RUNNING:
            sequence.token_ids.append(token_id)
        return delta

    return broken


def errors_are_ignored(commit: Method) -> Method:
    def broken(self: Scheduler, output: StepOutput, now_s: float) -> list[GenerationDelta]:
        sampled = [token and msgspec.structs.replace(token, error=None) for token in output.sampled]
        deltas: list[GenerationDelta] = commit(self, msgspec.structs.replace(output, sampled=sampled), now_s)
        return deltas

    return broken


def broken_chunks_go_on(commit: Method) -> Method:
    def broken(self: Scheduler, output: StepOutput, now_s: float) -> list[GenerationDelta]:
        rows = zip(self.oldest_in_flight.sequences, output.sampled, strict=True)
        sampled = [token if row.is_sampling else None for row, token in rows]
        deltas: list[GenerationDelta] = commit(self, msgspec.structs.replace(output, sampled=sampled), now_s)
        return deltas

    return broken


def failure_takes_the_siblings_along(fail: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence, error: str, now_s: float) -> GenerationDelta:
        siblings = [other for other in self._requests[sequence.request.request_id] if other is not sequence]
        delta: GenerationDelta = fail(self, sequence, error, now_s)
        for sibling in siblings:
            self._finish(sibling, FinishReason.ERROR, now_s, error)
        return delta

    return broken


SUBMIT_MUTANTS = [
    Mutant("samples_do_not_wait_for_the_prompt", Scheduler, "submit", samples_do_not_wait),
    Mutant("refused_request_leaves_a_trace", Scheduler, "submit", refused_request_leaves_a_trace),
    Mutant(
        "eos_is_ignored",
        Scheduler,
        "_new_sequence",
        stop_ids_are(lambda sequence, _: frozenset(sequence.request.sampling.stop_token_ids)),
    ),
    Mutant(
        "eos_always_stops",
        Scheduler,
        "_new_sequence",
        stop_ids_are(lambda sequence, scheduler: sequence.stop_ids | scheduler.config.eos_token_ids),
    ),
    Mutant(
        "stop_tokens_are_ignored",
        Scheduler,
        "_new_sequence",
        stop_ids_are(lambda sequence, scheduler: sequence.stop_ids & scheduler.config.eos_token_ids),
    ),
    Mutant("abort_ends_one_sample", Scheduler, "abort", abort_ends_one_sample),
    Mutant("abort_is_lost_during_a_step", Scheduler, "abort", abort_is_lost_during_a_step),
    Mutant("last_delta_comes_twice", Scheduler, "commit", deltas_come_twice),
    Mutant("abort_delta_comes_twice", Scheduler, "abort", deltas_come_twice),
    Mutant("deadline_is_ignored", Scheduler, "expire", always(list)),
    Mutant("deadline_is_late", Scheduler, "expire", expire_is_late),
]
SCHEDULE_MUTANTS = [
    Mutant("prefill_budget_is_one_more", Scheduler, "_schedule_prefills", prefill_budget_is_one_more),
    Mutant("prefill_cap_is_ignored", Scheduler, "_schedule_prefills", prefill_cap_is_ignored),
    Mutant("one_sequence_too_many", Scheduler, "_admit", one_sequence_too_many),
    Mutant("oldest_is_preempted", Scheduler, "_reserve_slot", preempts(lambda running, _: running[0])),
    Mutant("older_yields_to_younger", Scheduler, "_reserve_slot", preempts(lambda _, sequence: sequence)),
    Mutant("preempted_keeps_its_count", Scheduler, "_preempt", preempted_keeps_its_count),
    Mutant("preempted_is_lost", Scheduler, "_preempt", preempted_is_lost),
    Mutant("preempted_goes_to_the_tail", Scheduler, "_preempt", preempted_goes_to_the_tail),
    Mutant("hit_counts_one_token_more", Scheduler, "_place", hit_counts_one_token_more),
    Mutant("hit_is_computed_again", Scheduler, "_place", hit_is_computed_again),
    Mutant("match_includes_the_last_token", Scheduler, "_place", match_includes_the_last_token),
    Mutant("always_optimistic", Scheduler, "_num_blocks_kept_free", always_optimistic),
    Mutant("every_chunk_samples", Scheduler, "_row", row_is(lambda row, _: {"is_sampling": True})),
    Mutant("start_is_one_late", Scheduler, "_row", row_is(lambda row, _: {"start": row.start + 1})),
    Mutant("history_lags", Scheduler, "_row", row_is(lambda row, _: {"output_token_ids": row.output_token_ids and []})),
    Mutant("cleared_blocks_are_dropped", Scheduler, "schedule", cleared_blocks_are_dropped),
]
COMMIT_MUTANTS = [
    Mutant("blocks_are_freed_too_early", Scheduler, "_end", blocks_are_freed_before_the_step_is_over),
    Mutant("held_blocks_are_never_freed", Scheduler, "_take_in_flight", held_blocks_are_never_freed),
    Mutant("unfilled_blocks_are_registered", Scheduler, "_register_blocks", unfilled_blocks_are_registered),
    Mutant(
        "blocks_are_registered_early", Scheduler, "_register_blocks", blocks_are_registered_before_they_are_computed
    ),
    Mutant("parked_samples_stay_parked", Scheduler, "_unpark", always(None)),
    Mutant("token_is_appended_twice", Scheduler, "_append", token_is_appended_twice),
    Mutant("errors_are_ignored", Scheduler, "commit", errors_are_ignored),
    Mutant("broken_chunks_go_on", Scheduler, "commit", broken_chunks_go_on),
    Mutant("failure_takes_the_siblings_along", Scheduler, "_fail", failure_takes_the_siblings_along),
    Mutant("broken_blocks_are_not_cleared", BrokenBlocks, "_clear", always(None)),
    Mutant("late_errors_are_dropped", Scheduler, "_discard", always(None)),
]
SCHEDULER_MUTANTS = SUBMIT_MUTANTS + SCHEDULE_MUTANTS + COMMIT_MUTANTS
