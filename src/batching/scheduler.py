"""Decides, step by step, which tokens are computed next: admission, batches, preemption, ends.

Owns the sequences, the waiting queue and the block pool. Pure: synchronous, no clock of its own (every call is given
`now_s`, monotonic seconds), no torch, no text. One step is schedule -> (the runner executes) -> commit; between the
two, submit and abort are allowed, and an aborted sequence keeps its blocks until the step is over. Where the config
allows two steps in flight, one is planned ahead of the tokens of the last: on the assumption that nobody ends by them.
"""

from __future__ import annotations

import math

from batching.admission import Admission
from batching.block_pool import BlockPool
from batching.broken_blocks import BrokenBlocks
from batching.drafting import draft_rows, is_accepted, is_drafting
from batching.fair_share import FairShare
from batching.journal import Journal
from batching.placement import all_fit, num_blocks_kept_free, place
from batching.scheduler_config import Counters, SchedulerConfig
from batching.sequence import Sequence, SequenceStatus, sequence_of
from batching.step import SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from batching.steps_in_flight import StepsInFlight
from batching.tenant_limits import TenantLimits
from batching.token_budget import TokenBudget
from batching.waiting_queue import WaitingQueue
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, TokenLogprob
from contracts.records import SampleRecord, WaitCause


class Scheduler:
    """Continuous batching over a block pool. Owner: the engine's loop; never shared between threads.

    Invariants: sequences run and keep blocks in `order`; the first in order is never preempted; whatever is admitted
    can finish alone in the pool.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.pool = BlockPool(config.num_blocks)
        self.counters = Counters()
        self.shares = FairShare()
        self.limits = TenantLimits()
        self.token_budget = TokenBudget()
        self.journal = Journal()
        self.waiting = WaitingQueue(self.shares)
        self.admission = Admission(config, self.waiting)
        self._running: list[Sequence] = []  # in `order`; kept sorted at admission
        self._requests: dict[str, list[Sequence]] = {}  # unfinished samples of each live request
        self._parked: dict[str, list[Sequence]] = {}
        self._in_flight = StepsInFlight()
        self._broken = BrokenBlocks(self.pool)
        self._next_seq_id, self._earliest_deadline_s = 0, math.inf

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self.waiting) + sum(len(parked) for parked in self._parked.values())

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def is_step_in_flight(self) -> bool:
        return len(self._in_flight) > 0

    @property
    def oldest_in_flight(self) -> SchedulerOutput:
        """The step that the next commit is about; IndexError without one."""
        return self._in_flight.oldest

    # ---- submit, abort, expire

    def submit(self, request: GenerationRequest, now_s: float) -> None:
        """Queue every sample of a request, or raise and queue none.

        Raises ContextLengthExceeded, InvalidValue, QueueFull or RateLimited.
        """
        self.journal.now_s = now_s
        self.admission.check(request, self.num_waiting, is_known=request.request_id in self._requests)
        self.limits.admit(request, now_s)
        order = now_s + request.priority * self.config.priority_ageing_s
        samples = [self._new_sequence(request, index, now_s, order) for index in range(request.num_samples)]
        self._requests[request.request_id] = samples
        self._earliest_deadline_s = min(self._earliest_deadline_s, samples[0].deadline_s)
        self.counters.num_requests += 1
        self.counters.num_prompt_tokens += len(request.prompt_token_ids)
        self.shares.open(request.tenant.name)
        self._queue(samples[0])
        if len(samples) > 1:
            self._parked[request.request_id] = samples[1:]

    def _queue(self, sequence: Sequence) -> None:
        self.journal.queued(sequence, len(self.waiting))
        self.waiting.push(sequence)

    def _new_sequence(self, request: GenerationRequest, index: int, now_s: float, order: float) -> Sequence:
        self._next_seq_id += 1
        return sequence_of(request, index, self.config, seq_id=self._next_seq_id, submitted_s=now_s, order=order)

    def abort(self, request_id: str, now_s: float, reason: FinishReason = FinishReason.ABORT) -> list[GenerationDelta]:
        """End all samples of a request; unknown or ended ids give nothing."""
        return [self._finish(sequence, reason, now_s) for sequence in list(self._requests.get(request_id, ()))]

    def expire(self, now_s: float) -> list[GenerationDelta]:
        """End every request whose deadline has passed; cheap until the earliest one comes."""
        if now_s < self._earliest_deadline_s:
            return []
        live = [sequence for samples in self._requests.values() for sequence in samples]
        late = [sequence for sequence in live if sequence.deadline_s <= now_s]
        deltas = [self._finish(sequence, FinishReason.DEADLINE, now_s) for sequence in late]
        left = (sequence.deadline_s for samples in self._requests.values() for sequence in samples)
        self._earliest_deadline_s = min(left, default=math.inf)
        return deltas

    # ---- schedule

    def schedule(self, now_s: float) -> SchedulerOutput | None:
        """Plan the next step: decodes, then running prefills, then admissions. None when nothing can run.

        With a step in flight also None where it is too early to plan: the step in flight has to be committed first.
        """
        if len(self._in_flight) >= self.config.max_steps_in_flight:
            raise RuntimeError("schedule was called before the step in flight was committed")
        self.journal.begin_step(now_s)
        if self._in_flight and (is_drafting(self._running, self.config) or not all_fit(self._running, self.pool)):
            return None
        self.pool.begin_step(now_s)
        rows = self._schedule_decodes()
        is_decoding = len(rows) == len(self._running)
        drafts = self._draft(len(rows)) if is_decoding else []
        rows += drafts
        num_decodes = len(rows)
        budget = self.token_budget.num_tokens(self.config) - num_decodes
        if num_decodes:
            budget = min(budget, self.config.max_prefill_tokens_while_decoding)
        if not is_decoding:
            budget = self._schedule_prefills(rows, budget)
        self._admit(rows, budget, now_s)
        if not rows:
            return None
        plan = SchedulerOutput(
            step_id=self.counters.num_steps,
            sequences=rows,
            num_tokens=num_decodes + sum(len(row.token_ids) for row in rows[num_decodes:]),
            num_decodes=num_decodes,
            num_drafts=len(drafts),
            blocks_to_clear=self._broken.take(),
            began_s=now_s,
        )
        self._in_flight.begin(plan)
        self.counters.num_steps += 1
        self.counters.num_scheduled_seqs += len(rows) - len(drafts)
        self.counters.num_drafts += len(drafts)
        return plan

    def _schedule_decodes(self) -> list[ScheduledSequence]:
        rows = []
        block_size = self.config.block_size
        for sequence in self._running.copy():
            num_tokens = sequence.decode_len
            if not num_tokens or sequence.status is not SequenceStatus.RUNNING:  # preempted just now
                continue
            if num_tokens <= len(sequence.block_table.block_ids) * block_size or self._reserve_slot(sequence):
                rows.append(self._row(sequence, 1))
        return rows

    def _draft(self, num_decodes: int) -> list[ScheduledSequence]:
        """Rows for drafts, where all that run decode, if nobody waits: what is left of the budget is nobody else's."""
        if self.waiting or not is_drafting(self._running, self.config):
            return []
        most = min(self.token_budget.num_tokens(self.config), self.config.max_num_seqs) - num_decodes
        return draft_rows(self._running, most, self.config, self.pool)

    def _reserve_slot(self, sequence: Sequence) -> bool:
        """Make room for one more token, at the cost of younger sequences; False if this one had to go itself."""
        missing = sequence.block_table.num_missing_blocks(sequence.next_len)
        while missing and missing > self.pool.num_free_blocks:
            youngest = self._running[-1]
            num_computed = youngest.num_computed_tokens
            self._preempt(youngest)
            self.journal.preempted(youngest, sequence, num_computed)
            if youngest is sequence:
                return False
        sequence.block_table.block_ids += self.pool.allocate(missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._broken.release(sequence.block_table.clear())
        sequence.num_computed_tokens = 0
        sequence.num_preemptions += 1
        self.counters.num_preemptions += 1
        self._queue(sequence)

    def _schedule_prefills(self, rows: list[ScheduledSequence], budget: int) -> int:
        for sequence in self._running:
            if budget > 0 and not sequence.num_awaited_tokens and not sequence.decode_len:
                num_tokens = min(sequence.num_unplanned_tokens, budget)
                rows.append(self._row(sequence, num_tokens))
                budget -= num_tokens
        return budget

    def _admit(self, rows: list[ScheduledSequence], budget: int, now_s: float) -> None:
        """Move waiting sequences into the batch, strictly in turn: who does not fit holds back those behind."""
        while (sequence := self.waiting.peek()) is not None:
            if budget <= 0 or len(self._running) >= self.config.max_num_seqs:
                return self.journal.stop_admission(WaitCause.BUDGET if budget <= 0 else WaitCause.BATCH, self._running)
            if not self._place(sequence):
                return self.journal.stop_admission(WaitCause.BLOCKS, self._running)
            self.waiting.remove(sequence)
            self.journal.admitted(sequence)
            sequence.status = SequenceStatus.RUNNING
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now_s
                sequence.num_cached_tokens = sequence.num_computed_tokens
                self.counters.num_cached_tokens += sequence.num_cached_tokens
                self.shares.charge(sequence.request.tenant, sequence.num_remaining_tokens)
            self._running.append(sequence)
            self._running.sort(key=lambda running: running.order)
            num_tokens = min(sequence.num_remaining_tokens, budget)
            rows.append(self._row(sequence, num_tokens))
            budget -= num_tokens
        return self.journal.stop_admission(WaitCause.STEP, self._running)

    def _place(self, sequence: Sequence) -> bool:
        return place(sequence, self.pool, self._num_blocks_kept_free(sequence))

    def _num_blocks_kept_free(self, sequence: Sequence) -> int:
        return num_blocks_kept_free(sequence, self._running)

    def _row(self, sequence: Sequence, num_tokens: int) -> ScheduledSequence:
        return sequence.plan(num_tokens)

    # ---- commit

    def commit(self, output: StepOutput, now_s: float) -> list[GenerationDelta]:
        """Take the results of the step in flight: append tokens, register full blocks, end what is done."""
        plan = self._take_in_flight()
        self.journal.end_step(plan, output.duration_s, now_s)
        self.counters.step_time_s += output.duration_s
        self.counters.num_out_of_memory += output.was_out_of_memory
        self.token_budget.observe(plan.num_tokens, self.config, was_out_of_memory=output.was_out_of_memory)
        self.admission.observe(plan.num_tokens, output.duration_s)
        deltas = []
        block_size = self.config.block_size
        by_id = {sequence.seq_id: sequence for sequence in self._running}
        for index, (row, sampled) in enumerate(zip(plan.sequences, output.sampled, strict=True)):
            sequence = by_id.get(row.seq_id)
            if sequence is None:  # aborted or expired while the step ran
                self._discard(row, sampled)
                continue
            num_tokens = len(row.token_ids)
            if row.num_drafts_before:
                if not is_accepted(row, sequence, sampled):
                    self._discard(row, sampled)
                    continue
                self.counters.num_accepted_drafts += 1
            else:
                sequence.num_planned_tokens -= num_tokens
                sequence.num_awaited_tokens -= row.is_sampling
            if sampled is not None and sampled.error is not None:
                deltas.append(self._fail(sequence, sampled.error, now_s))
                continue
            sequence.num_computed_tokens += num_tokens
            if index >= plan.num_decodes:
                self.journal.computed(sequence, row, plan)
            if sequence.num_computed_tokens // block_size > sequence.block_table.num_registered:
                self._register_blocks(sequence)
            if self._parked:
                self._unpark(sequence)
            if sampled is not None:
                deltas.append(self._append(sequence, sampled.token_id, sampled.logprob, now_s))
        return deltas

    def _discard(self, row: ScheduledSequence, sampled: SampledToken | None) -> None:
        """Clear what was written for an ended sequence or a wrong draft, if it was broken numbers."""
        if sampled is not None and sampled.error is not None:
            first = row.start // self.config.block_size if row.num_drafts_before else 0
            self._broken.suspect(row.block_ids[first:])

    def _take_in_flight(self) -> SchedulerOutput:
        if not self._in_flight:
            raise RuntimeError("commit was called with no step in flight")
        plan, held = self._in_flight.end()
        self._broken.release(held)
        return plan

    def _register_blocks(self, sequence: Sequence) -> None:
        """Make the blocks that are full now findable."""
        for block_id, key in sequence.block_table.take_full(sequence.token_ids, sequence.num_computed_tokens):
            self.pool.register(block_id, key, sequence.request.tenant)

    def _unpark(self, sequence: Sequence) -> None:
        """Queue the samples that waited for this one's prompt, once it is computed or will never be."""
        request_id = sequence.request.request_id
        is_ready = sequence.num_computed_tokens >= sequence.num_prompt_tokens
        if request_id in self._parked and (is_ready or sequence.status is SequenceStatus.FINISHED):
            for sibling in self._parked.pop(request_id):
                self._queue(sibling)

    def _append(self, sequence: Sequence, token_id: int, logprob: TokenLogprob | None, now_s: float) -> GenerationDelta:
        sequence.token_ids.append(token_id)
        self.counters.num_generated_tokens += 1
        self.shares.charge(sequence.request.tenant, 1)
        if sequence.first_token_s is None:
            sequence.first_token_s = now_s
        if token_id in sequence.stop_ids:
            reason = FinishReason.STOP
        elif len(sequence.token_ids) >= sequence.limit:
            reason = FinishReason.LENGTH
        else:
            return sequence.token_delta(token_id, logprob)
        record = self._end(sequence, reason)
        logprobs = None if logprob is None else [logprob]
        return sequence.delta(reason, now_s, token_ids=[token_id], logprobs=logprobs, record=record)

    def _fail(self, sequence: Sequence, error: str, now_s: float) -> GenerationDelta:
        """End one sequence whose numbers are broken; nothing it wrote is ever matched or read again."""
        self._broken.suspect(sequence.block_table.block_ids)
        return self._finish(sequence, FinishReason.ERROR, now_s, error)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, now_s: float, error: str | None = None
    ) -> GenerationDelta:
        self.journal.now_s = now_s
        record = self._end(sequence, reason, error)
        return sequence.delta(reason, now_s, token_ids=[], error=error, record=record)

    def _end(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> SampleRecord:
        """Take a sequence out of every table and free its blocks (after the step, if one is computing them)."""
        if sequence.status is SequenceStatus.RUNNING:
            self._running.remove(sequence)
        self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        samples = self._requests[sequence.request.request_id]
        samples.remove(sequence)
        self.limits.use(sequence.request.request_id, sequence.num_output_tokens)
        if not samples:
            del self._requests[sequence.request.request_id]
            self.shares.close(sequence.request.tenant.name)
            self.limits.close(sequence.request.request_id)
        parked = self._parked.get(sequence.request.request_id)
        if parked is not None and sequence in parked:
            parked.remove(sequence)
        if sequence.sample_index == 0:
            self._unpark(sequence)
        block_ids = sequence.block_table.clear()
        if self._in_flight:
            self._in_flight.hold(block_ids)
        else:
            self._broken.release(block_ids)
        self.counters.count_end(reason)
        return self.journal.ended(sequence, reason, error)

    # ---- integrity

    def repair_idle(self) -> str | None:
        """With nothing live, check that all books say so; if not, begin new ones and return what was wrong.

        The prefix cache goes with them. A wrong count is a bug, but no reason to stop serving.
        """
        if self._requests or self._in_flight:
            raise RuntimeError("repair_idle was called while a request was live or a step in flight")
        self.token_budget.rest()
        fault = self._idle_fault()
        if fault is not None:
            self.counters.num_integrity_faults += 1
            self.pool.reset()
            self.shares.clear()
            self.waiting.clear()
            self.limits.close_all()
            self.journal.forget_all()
            self._in_flight.forget_all()
            self._running, self._parked = [], {}
            self._broken.free_all()
        return fault

    def _idle_fault(self) -> str | None:
        left = {
            "running": len(self._running),
            "waiting": len(self.waiting),
            "waiting_tokens": self.waiting.num_tokens,
            "parked": len(self._parked),
            "held_blocks": len(self._in_flight.held_block_ids),
            "suspect_blocks": self._broken.num_suspects,
            "tenants": self.shares.num_tenants,
            "granted": self.limits.num_live,
        }
        counts = ", ".join(f"{name} {count}" for name, count in left.items() if count)
        return f"nothing is live, but something is left: {counts}" if counts else self.pool.idle_fault()

    def check_integrity(self) -> None:
        """Raise unless the pool's books agree with the live sequences; holds at any moment."""
        tables = [sequence.block_table.block_ids for sequence in self._running]
        self.pool.check_integrity([*tables, self._in_flight.held_block_ids])
