"""The invariants of the pure core, as functions of a `World`, and where each one is checked.

| | says | checked |
|---|---|---|
| I1 | a block is free or referenced, once; cached means free with a key | `i1_each_block_is_in_one_state`, every call |
| I2 | references = entries of live tables + held for the step in flight | `i2_references_are_counted`, every call |
| I3 | references >= 0 | `i2_references_are_counted`; releasing twice raises (test_block_pool) |
| I4 | empty + cached + referenced = all | `i4_blocks_add_up`, every call |
| I5 | a block being written has one reference and no key | `i5_written_blocks_are_owned`, every plan |
| I6 | what is findable is full, computed, and what its key says | `i6_findable_blocks_hold_their_content`, every call |
| I7 | broken or forgotten blocks are not found nor read | `i7_broken_blocks_are_cleared`, every call; FakeModel |
| I8 | tables are as long as their tokens; slots of a step differ | `i8_tables_fit`, `i8_slots_differ` |
| I9 | a plan keeps the limits, and uses what they leave | `i9_plan_is_within_limits`, every plan |
| I10 | output = the request alone | `i10_output_is_that_of_the_request_alone`, every delta; FakeModel |
| I11 | exactly the owed deltas, one end, nothing after it | `i11_one_delta_each`, `i11_stream_is_whole` |
| I12 | legal states; a sequence is in the table of its state only | `i12_states_are_legal`, every call |
| I13 | nothing live: nothing held, counts agree | `i13_nothing_is_left`, every drain |
| I14 | work exists: some token; the oldest runs on | `i14_some_token_is_computed`, every schedule |
| I15 | bounded wait and preemptions, in order | `i15_wait_and_preemptions_are_bounded`, every schedule |
| I16 | what never fits, or finds the queue full, leaves no trace | `i16_refused_exactly_when_it_must`, every submit |
| I17 | a broken row fails alone | `i17_only_broken_rows_fail`, every commit |
| I22 | drafts are decodes that may come true, and take nobody's place | `i22_draft_may_come_true`, every plan |
| I18 | without submits the remaining work falls with every step | `i18_drain_gets_closer`, every drain |

I13, I16 and I18 are in `core_end_invariants`, those of the turns between tenants in `core_tenant_invariants`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batching.block_table import num_blocks_for
from batching.sequence import Sequence, SequenceStatus
from batching.step import UNKNOWN_TOKEN, ScheduledSequence, SchedulerOutput
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from tests.batching import core_journal_invariants as journal
from tests.batching.budget_oracle import token_budget
from tests.batching.content_oracle import NAN, POISON, ZERO, sample_seed

if TYPE_CHECKING:
    from tests.batching.core_world import SampleLog, World

LEGAL_CHANGES = {
    SequenceStatus.PARKED: set(SequenceStatus),
    SequenceStatus.WAITING: set(SequenceStatus) - {SequenceStatus.PARKED},
    SequenceStatus.RUNNING: set(SequenceStatus) - {SequenceStatus.PARKED},
    SequenceStatus.FINISHED: {SequenceStatus.FINISHED},
}
MAX_FREE_PREEMPTIONS = 2
"""Beyond these, only a sequence of the same tenant that is older and was admitted later may preempt."""
WORK_FACTOR = 6
"""A sample computes each of its positions at most this often, counting recomputation after preemption."""


def check_all(world: World) -> None:
    """Everything that holds after any call, with a step in flight or not."""
    world.scheduler.check_integrity()
    i1_each_block_is_in_one_state(world)
    i2_references_are_counted(world)
    i4_blocks_add_up(world)
    i7_broken_blocks_are_cleared(world)
    i6_findable_blocks_hold_their_content(world)
    i8_tables_fit(world)
    i12_states_are_legal(world)


def check_plan(world: World, plan: SchedulerOutput) -> None:
    """Everything that holds for a plan before it is executed."""
    i5_written_blocks_are_owned(world, plan)
    i8_slots_differ(world, plan)
    i9_plan_is_within_limits(world, plan)
    for index, row in enumerate(plan.sequences):
        if row.num_drafts_before:
            i22_draft_may_come_true(world, row, plan)
        else:
            row_is_next_work_of_its_sequence(world, row, is_decode=index < plan.num_decodes)


# ---- blocks


def i1_each_block_is_in_one_state(world: World) -> None:
    pool = world.scheduler.pool
    free = list(pool._free)
    assert len(free) == len(set(free))
    for block_id in range(pool.num_blocks):
        assert (block_id in pool._free) == (pool.num_refs(block_id) == 0), f"block {block_id} is in two states"


def i2_references_are_counted(world: World) -> None:
    scheduler = world.scheduler
    num_entries = [0] * scheduler.pool.num_blocks
    for table in [scheduler._in_flight.held_block_ids, *(log.sequence.block_table.block_ids for log in world.live)]:
        for block_id in table:
            num_entries[block_id] += 1
    assert scheduler.pool._num_refs == num_entries, "a block is miscounted"


def i4_blocks_add_up(world: World) -> None:
    pool = world.scheduler.pool
    is_free = [num_refs == 0 for num_refs in pool._num_refs]
    num_cached = sum(free and key is not None for free, key in zip(is_free, pool._keys, strict=True))
    assert num_cached == pool.num_cached_blocks
    assert sum(is_free) == pool.num_free_blocks
    assert len(is_free) == pool.num_blocks == world.config.num_blocks


def i5_written_blocks_are_owned(world: World, plan: SchedulerOutput) -> None:
    pool, size = world.scheduler.pool, world.config.block_size
    for row in plan.sequences:
        for block_id in row.block_ids[row.start // size : num_blocks_for(row.context_len, size)]:
            assert pool.num_refs(block_id) == 1, f"row {row.seq_id} writes to the shared block {block_id}"
            assert pool._keys[block_id] is None, f"row {row.seq_id} writes to the findable block {block_id}"


def i6_findable_blocks_hold_their_content(world: World) -> None:
    pool, model = world.scheduler.pool, world.model
    for digest, block_id in pool._digest_to_block.items():
        key = pool._keys[block_id]
        assert key is not None
        assert key.digest == digest
        values = model.block_values(block_id)
        assert not {NAN, POISON, ZERO} & set(values), f"block {block_id} is findable but holds {values}"
        assert list(key.token_ids) == model.block_token_ids(block_id)
        assert world.values_by_digest.setdefault(digest, values[-1]) == values[-1], "one key for two contents"


def i7_broken_blocks_are_cleared(world: World) -> None:
    """Broken numbers in a free block are on the list to be cleared; other free, forgotten blocks are poisoned."""
    scheduler = world.scheduler
    for block_id in range(scheduler.pool.num_blocks):
        if scheduler.pool.num_refs(block_id) == 0 and scheduler.pool._keys[block_id] is None:
            world.model.poison(block_id)
        if NAN in world.model.block_values(block_id) and not world.plans:
            assert block_id in scheduler._broken._to_clear, f"block {block_id} keeps broken numbers"


def i8_tables_fit(world: World) -> None:
    for log in world.live:
        sequence, size = log.sequence, world.config.block_size
        block_ids = sequence.block_table.block_ids
        assert len(block_ids) == len(set(block_ids))
        if sequence.status is SequenceStatus.RUNNING:
            assert sequence.num_computed_tokens < sequence.num_tokens
            most = num_awaited(world, sequence.seq_id) + world.config.num_draft_tokens
            lengths = range(sequence.num_tokens - 1, sequence.num_tokens + most + 1)
            assert len(block_ids) in {num_blocks_for(length, size) for length in lengths}
        else:
            assert not block_ids
            assert sequence.num_computed_tokens == 0
        assert sequence.token_ids == log.known_token_ids


def i8_slots_differ(world: World, plan: SchedulerOutput) -> None:
    slots = [
        world.model.slot(row.block_ids, position)
        for row in plan.sequences
        for position in range(row.start, row.context_len)
    ]
    assert len(slots) == len(set(slots))
    for row in plan.sequences:
        sequence = world.logs[row.seq_id].sequence
        num_tokens = sequence.num_tokens + num_awaited(world, row.seq_id, plan)
        lengths = range(max(num_tokens, row.context_len), num_tokens + world.config.num_draft_tokens + 1)
        assert len(row.block_ids) in {num_blocks_for(length, world.config.block_size) for length in lengths}


# ---- plans


def in_flight(world: World, seq_id: int, until: SchedulerOutput | None = None) -> list[ScheduledSequence]:
    """The rows of one sequence in the steps in flight, up to one of these steps."""
    plans = world.plans[: world.plans.index(until)] if until in world.plans else world.plans
    rows = [row for plan in plans for row in plan.sequences if row.seq_id == seq_id]
    return [row for row in rows if not row.num_drafts_before]


def num_awaited(world: World, seq_id: int, until: SchedulerOutput | None = None) -> int:
    """Tokens that the steps in flight sample for it."""
    return sum(row.is_sampling for row in in_flight(world, seq_id, until))


def i9_plan_is_within_limits(world: World, plan: SchedulerOutput) -> None:
    config = world.config
    num_tokens = sum(len(row.token_ids) for row in plan.sequences)
    assert plan.num_tokens == num_tokens <= config.max_num_batched_tokens
    num_rows = len(plan.sequences) - plan.num_drafts
    assert num_rows <= world.scheduler.num_running <= config.max_num_seqs >= len(plan.sequences)
    assert len({row.seq_id for row in plan.sequences}) == num_rows
    assert plan.num_drafts == sum(row.num_drafts_before > 0 for row in plan.sequences)
    budget = max(0, token_budget(config, world.steps) - plan.num_decodes)
    if plan.num_decodes:
        budget = min(budget, config.max_prefill_tokens_while_decoding)
    num_prefill_tokens = num_tokens - plan.num_decodes
    assert num_prefill_tokens <= budget
    held_back = [sequence for sequence in world.scheduler._running if is_held_back(world, sequence)]
    assert not held_back or num_prefill_tokens == budget, "budget is left, but a running sequence waits"
    assert not any(decodes(world, sequence) for sequence in held_back), "a sequence that decodes waits"


def is_held_back(world: World, sequence: Sequence) -> bool:
    """It could compute more than the steps in flight do."""
    rows = in_flight(world, sequence.seq_id)
    num_known = sequence.num_tokens + num_awaited(world, sequence.seq_id, world.plans[-1])
    num_planned = sequence.num_computed_tokens + sum(len(row.token_ids) for row in rows)
    return num_planned < num_known < max_tokens_of(world, sequence)


def max_tokens_of(world: World, sequence: Sequence) -> int:
    """Tokens with which a sequence ends, known beforehand."""
    return min(world.logs[sequence.seq_id].max_len, world.config.max_model_len)


def decodes(world: World, sequence: Sequence) -> bool:
    """All but one of its tokens are computed or planned, and the one is an output token."""
    earlier = in_flight(world, sequence.seq_id, world.plans[-1])
    num_known = sequence.num_tokens + sum(row.is_sampling for row in earlier)
    num_planned = sequence.num_computed_tokens + sum(len(row.token_ids) for row in earlier)
    return num_known - num_planned == 1 and num_known > sequence.num_prompt_tokens


def row_is_next_work_of_its_sequence(world: World, row: ScheduledSequence, *, is_decode: bool) -> None:
    log = world.logs[row.seq_id]
    earlier = in_flight(world, row.seq_id, world.plans[-1])
    known = log.known_token_ids + [UNKNOWN_TOKEN for earlier_row in earlier if earlier_row.is_sampling]
    num_outputs = len(known) - len(log.request.prompt_token_ids)
    assert log.finish_reason is None, f"row {row.seq_id} is of an ended sample"
    assert row.token_ids
    assert row.start == log.sequence.num_computed_tokens + sum(len(earlier_row.token_ids) for earlier_row in earlier)
    assert row.token_ids == known[row.start : row.context_len]
    assert row.is_sampling == (row.context_len == len(known))
    assert len(known) < max_tokens_of(world, log.sequence), "a token is computed for nothing"
    kept_its_place = log.status is SequenceStatus.RUNNING and log.sequence.num_preemptions == log.num_preemptions
    assert is_decode == (kept_its_place and row.start == len(known) - 1 and num_outputs > 0)
    assert row.num_output_tokens == num_outputs
    assert row.sampling is log.request.sampling
    assert row.seed == sample_seed(log.request.sampling.seed, log.sample_index)
    assert row.block_ids == log.sequence.block_table.block_ids
    has_history = log.request.sampling.has_penalties
    assert row.prompt_token_ids == (log.request.prompt_token_ids if has_history else None)
    assert row.output_token_ids == (log.token_ids if has_history else None)


def i22_draft_may_come_true(world: World, row: ScheduledSequence, plan: SchedulerOutput) -> None:
    """It follows the rows of its sequence one by one, as a decode that nobody could tell from others."""
    log = world.logs[row.seq_id]
    assert world.plans == [plan], "a draft is planned ahead"
    assert not log.request.sampling.has_penalties
    assert not any(sequence.num_tokens for sequence in world.scheduler.waiting), "drafts take the place of requests"
    rows = [other for other in plan.sequences if other.seq_id == row.seq_id]
    assert rows.index(row) == row.num_drafts_before <= world.config.num_draft_tokens
    assert row.start == len(log.known_token_ids) - 1 + row.num_drafts_before
    assert row.context_len < max_tokens_of(world, log.sequence), "a draft beyond the last token"
    assert row.num_output_tokens == len(log.token_ids) + row.num_drafts_before
    assert row.is_sampling
    assert len(row.token_ids) == 1
    assert row.seed == rows[0].seed
    assert row.sampling is rows[0].sampling


def i14_some_token_is_computed(
    world: World, plan: SchedulerOutput | None, running: list[Sequence], preemptions: dict[int, int]
) -> None:
    """`running` and their `preemptions` are from before the schedule that just made `plan`."""
    if plan is None:
        assert world.plans or not world.scheduler.has_work, "work exists and nothing is computed"
        assert all(sequence.num_preemptions == preemptions[sequence.seq_id] for sequence in running)
        return
    assert plan.num_tokens > 0
    if len(world.plans) > 1:
        assert all(sequence.num_preemptions == preemptions[sequence.seq_id] for sequence in running)
    if running:
        oldest = min(running, key=lambda sequence: sequence.order)
        assert oldest.num_preemptions == preemptions[oldest.seq_id], "the oldest was preempted"
        goes_on = oldest.num_tokens + num_awaited(world, oldest.seq_id, plan) < max_tokens_of(world, oldest)
        assert not goes_on or oldest.seq_id in {row.seq_id for row in plan.sequences}, "the oldest stands still"


def grant_waiting_steps(world: World, request: GenerationRequest) -> None:
    """Bound the steps until the first token of the samples just logged, and of those that they may overtake."""
    live = world.live
    new = [log for log in live if log.max_steps_waited == 0]
    new_work = sum(WORK_FACTOR * log.max_len for log in new)
    order = new[0].sequence.order
    for log in live:
        is_parked = log.sequence.status is SequenceStatus.PARKED
        is_other = log.request.tenant.name != request.tenant.name
        if log in new:
            log.max_steps_waited = sum(WORK_FACTOR * other.max_len for other in live)
        elif order < log.sequence.order or is_parked or is_other:
            log.max_steps_waited += new_work


def i15_wait_and_preemptions_are_bounded(world: World) -> None:
    live = world.live
    running = [log for log in live if log.status is SequenceStatus.RUNNING]
    for log in live:
        assert log.sequence.order == log.order, "the order of a sequence is constant for life"
        log.num_steps_waited += 0 if log.token_ids else 1
        assert log.num_steps_waited <= log.max_steps_waited, f"sample {log.sequence.seq_id} starves"
        if log.sequence.num_preemptions > log.num_preemptions:
            assert log.sequence.num_preemptions == log.num_preemptions + 1
            log.num_preemptions += 1
            latecomers = [
                other
                for other in running
                if other.admission > log.admission
                and other.sequence.order < log.sequence.order
                and other.request.tenant.name == log.request.tenant.name
            ]
            assert log.num_preemptions <= MAX_FREE_PREEMPTIONS or latecomers, "preempted too often"
            log.status = SequenceStatus.WAITING
    now_running = [log for log in live if log.sequence.status is SequenceStatus.RUNNING]
    admitted = [log for log in now_running if log.status is not SequenceStatus.RUNNING]
    waiting = [log.sequence for log in live if log.sequence.status is SequenceStatus.WAITING]
    for log in sorted(admitted, key=lambda log: log.sequence.order):
        behind = [other.order for other in waiting if other.request.tenant.name == log.request.tenant.name]
        assert not behind or log.sequence.order < min(behind), "a younger one was admitted first"
        world.num_admissions += 1
        log.admission = world.num_admissions


# ---- states and streams


def i12_states_are_legal(world: World) -> None:
    scheduler = world.scheduler
    parked = [sequence for samples in scheduler._parked.values() for sequence in samples]
    places = [(sequence.seq_id, SequenceStatus.RUNNING) for sequence in scheduler._running]
    places += [(sequence.seq_id, SequenceStatus.WAITING) for sequence in scheduler.waiting]
    places += [(sequence.seq_id, SequenceStatus.PARKED) for sequence in parked]
    place_of = dict(places)
    live = [sequence.seq_id for samples in scheduler._requests.values() for sequence in samples]
    assert len(places) == len(place_of), "a sequence is in two places"
    assert sorted(live) == sorted(place_of), "a sequence is live but nowhere, or somewhere but not live"
    for seq_id, log in world.logs.items():
        status = log.sequence.status
        assert status is log.status or status in LEGAL_CHANGES[log.status], f"{log.status} -> {status}"
        log.status = status
        assert (log.finish_reason is not None) == (status is SequenceStatus.FINISHED)
        assert place_of.get(seq_id, SequenceStatus.FINISHED) is status
    orders = [sequence.order for sequence in scheduler._running]
    assert orders == sorted(orders)
    assert all(scheduler._requests.values())
    assert scheduler.has_work == bool(world.live)
    assert scheduler.num_waiting == len(parked) + len(scheduler.waiting)
    assert scheduler.waiting.num_tokens == sum(sequence.num_tokens for sequence in scheduler.waiting)


def i10_output_is_that_of_the_request_alone(log: SampleLog) -> None:
    output, reason = log.solo
    assert log.token_ids == output[: len(log.token_ids)], f"{log.token_ids} instead of {output}"
    if log.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
        assert (log.token_ids, log.finish_reason) == (output, reason)
    assert log.finish_reason is not None or len(log.token_ids) < len(output), "the end was missed"


def i11_one_delta_each(owed: list[SampleLog], deltas: list[GenerationDelta]) -> None:
    expected = Counter((log.request.request_id, log.sample_index) for log in owed)
    assert Counter((delta.request_id, delta.sample_index) for delta in deltas) == expected


def i11_stream_is_whole(world: World, log: SampleLog, delta: GenerationDelta) -> None:
    """`log` is the one live sample that the delta is for."""
    assert (delta.times is not None) == (delta.finish_reason is not None)
    assert (delta.error is not None) == (delta.finish_reason is FinishReason.ERROR)
    assert delta.ended_by_token == (delta.finish_reason is FinishReason.STOP)
    assert len(delta.token_ids) == (delta.finish_reason in (None, FinishReason.STOP, FinishReason.LENGTH))
    assert log.num_cached_tokens in (None, delta.num_cached_tokens)
    assert delta.num_cached_tokens <= len(log.request.prompt_token_ids) - 1
    assert delta.num_cached_tokens % world.config.block_size == 0
    if delta.times is not None:
        times = delta.times
        moments = [times.submitted_s, times.scheduled_s, times.first_token_s, times.finished_s]
        known = [moment for moment in moments if moment is not None]
        assert known == sorted(known)
        assert (times.submitted_s, times.finished_s) == (log.submitted_s, world.now_s)
        assert (times.first_token_s is None) == (not log.token_ids and not delta.token_ids)
        assert times.num_preemptions == log.sequence.num_preemptions
    assert (delta.record is not None) == (delta.finish_reason is not None)
    if delta.record is not None:
        journal.i21_record_adds_up(world, log, delta.record)


def i17_only_broken_rows_fail(delta: GenerationDelta, *, is_broken: bool, error: str) -> None:
    assert (delta.finish_reason is FinishReason.ERROR) == is_broken
    assert delta.error == (error if is_broken else None)
