"""The scheduler with a fake model, a fake clock and an independent record of what each sample is owed.

Owns every way in which tests drive the pure core: submit, schedule, commit, abort, expire, broken rows, failed steps,
an emptied cache, drain. Each call checks its own result and then all invariants of `core_invariants`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.sequence import Sequence, SequenceStatus
from batching.step import UNKNOWN_TOKEN, SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from contracts.errors import QuireError, RateLimited
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from contracts.sampling import SamplingParams
from tests.batching import core_end_invariants as ends
from tests.batching import core_invariants as invariants
from tests.batching import core_tenant_invariants as tenants
from tests.batching.content_oracle import BROKEN, Context, FakeModel, mix, solo_output
from tests.batching.rate_oracle import RateOracle

VOCAB_SIZE = 4
EOS = 3
STEP_DURATION_S = 0.25


def small_config(
    *,
    num_blocks: int = 8,
    block_size: int = 2,
    max_num_seqs: int = 3,
    max_num_batched_tokens: int = 8,
    max_prefill_tokens_while_decoding: int = 4,
    enable_prefix_caching: bool = True,
    limits: tuple[int, int, int] = (24, 10, 60),
    max_steps_in_flight: int = 1,
    num_draft_tokens: int = 0,
) -> SchedulerConfig:
    """A config for four tokens, 3 being the end; `limits` are model length, queued requests, queued tokens."""
    return SchedulerConfig(
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_len=limits[0],
        vocab_size=VOCAB_SIZE,
        eos_token_ids=frozenset({EOS}),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_prefill_tokens_while_decoding=max_prefill_tokens_while_decoding,
        max_queued_requests=limits[1],
        max_queued_tokens=limits[2],
        priority_ageing_s=2.0,
        enable_prefix_caching=enable_prefix_caching,
        max_steps_in_flight=max_steps_in_flight,
        num_draft_tokens=num_draft_tokens,
    )


def small_request(request_id: str, prompt: list[int], **options: object) -> GenerationRequest:
    """A request; `options` are fields of GenerationRequest or of SamplingParams."""
    outer = {name: value for name, value in options.items() if name in GenerationRequest.__struct_fields__}
    inner = {name: value for name, value in options.items() if name not in outer}
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=prompt,
        sampling=SamplingParams(**{"max_tokens": 8, **inner}),  # type: ignore[arg-type]
        **outer,  # type: ignore[arg-type]
    )


@dataclass
class SampleLog:
    """What the caller of one sample has seen, and what it is owed."""

    request: GenerationRequest
    sample_index: int
    sequence: Sequence
    root: int
    solo: tuple[list[int], FinishReason]
    submitted_s: float
    order: tuple[float, int]
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_cached_tokens: int | None = None
    status: SequenceStatus = SequenceStatus.PARKED
    num_steps_waited: int = 0
    max_steps_waited: int = 0
    num_preemptions: int = 0
    admission: int = 0
    """Running number of its last admission into the batch."""

    @property
    def known_token_ids(self) -> list[int]:
        return self.request.prompt_token_ids + self.token_ids

    @property
    def deadline_s(self) -> float | None:
        return None if self.request.timeout_s is None else self.submitted_s + self.request.timeout_s

    @property
    def max_len(self) -> int:
        return len(self.request.prompt_token_ids) + self.request.sampling.max_tokens


class World:
    """One scheduler and everything around it. Owner: a test; `check` holds after every call."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.now_s = 0.0
        self.scheduler = Scheduler(config)
        self.model = FakeModel(config.num_blocks, config.block_size, config.vocab_size)
        self.logs: dict[int, SampleLog] = {}
        self.plans: list[SchedulerOutput] = []
        """Steps in flight, oldest first."""
        self.broken_ids: set[int] = set()
        """Samples that wrote broken numbers."""
        self.num_admissions = 0
        self.values_by_digest: dict[bytes, int] = {}
        self.ledger = tenants.Ledger()
        self.rates = RateOracle()
        self.steps: list[tuple[int, bool]] = []
        """Tokens of every step that was committed, and whether it ran out of memory."""
        self.num_steps_at_rest = 0
        """Of these, how many there were at the last idle moment."""

    # ---- what the caller sees

    @property
    def may_begin(self) -> bool:
        """Another step may be planned now."""
        return len(self.plans) < self.config.max_steps_in_flight

    @property
    def live(self) -> list[SampleLog]:
        return [log for log in self.logs.values() if log.finish_reason is None]

    def log_of(self, request_id: str, sample_index: int = 0) -> SampleLog:
        """The newest sample of that name, live or ended."""
        logs = [log for log in self.logs.values() if log.request.request_id == request_id]
        return next(log for log in reversed(logs) if log.sample_index == sample_index)

    def samples_of(self, log: SampleLog) -> list[SampleLog]:
        """All samples of its request, live and ended; the id may have been in use before."""
        return [other for other in self.logs.values() if other.request is log.request]

    def root(self, request: GenerationRequest) -> int:
        return mix(*(request.cache_salt if self.config.enable_prefix_caching else request.request_id).encode())

    def contexts(self) -> dict[int, Context]:
        return {seq_id: Context(log.root, log.known_token_ids) for seq_id, log in self.logs.items()}

    def check(self) -> None:
        invariants.check_all(self)
        tenants.i19_service_is_counted(self)

    # ---- submit, abort, expire, reset

    def submit(self, request: GenerationRequest) -> bool:
        """Submit and compare with what the limits say; True if it was admitted."""
        expected = ends.expected_refusal(self, request)
        before = ends.books(self)
        refusal: QuireError | None = None
        try:
            self.scheduler.submit(request, self.now_s)
        except QuireError as error:
            refusal = error
        ends.i16_refused_exactly_when_it_must(expected, refusal)
        if isinstance(refusal, RateLimited):
            self.rates.check_wait(request, self.now_s, refusal.retry_after_s)
        if refusal is None:
            self.rates.admitted(request, self.now_s)
            self._log_samples(request)
        else:
            ends.refusal_changed_nothing(before, ends.books(self))
        self.check()
        return refusal is None

    def admit(self, request_id: str, prompt: list[int], **options: object) -> None:
        """Submit an endless request that must be admitted."""
        assert self.submit(small_request(request_id, prompt, ignore_eos=True, **options))

    def _log_samples(self, request: GenerationRequest) -> None:
        config, root = self.config, self.root(request)
        for index, sequence in enumerate(self.scheduler._requests[request.request_id]):
            solo = solo_output(request, index, root, vocab_size=config.vocab_size, eos_token_ids=config.eos_token_ids)
            self.logs[sequence.seq_id] = SampleLog(request, index, sequence, root, solo, self.now_s, sequence.order)
        invariants.grant_waiting_steps(self, request)

    def abort(self, request_id: str) -> None:
        owed = [log for log in self.live if log.request.request_id == request_id]
        self._end_all(owed, self.scheduler.abort(request_id, self.now_s), FinishReason.ABORT)

    def advance(self, seconds: float) -> None:
        """Let time pass and end what is late."""
        self.now_s += seconds
        late = [log for log in self.live if log.deadline_s is not None and log.deadline_s <= self.now_s]
        self._end_all(late, self.scheduler.expire(self.now_s), FinishReason.DEADLINE)

    def _end_all(self, owed: list[SampleLog], deltas: list[GenerationDelta], reason: FinishReason) -> None:
        invariants.i11_one_delta_each(owed, deltas)
        for delta in deltas:
            self.deliver(delta)
            assert delta.finish_reason is reason
            assert not delta.token_ids
        self.check()

    def forget_all(self) -> None:
        self.scheduler.pool.forget_all()
        self.check()

    # ---- one step

    def begin_step(self) -> SchedulerOutput | None:
        running = list(self.scheduler._running)
        preemptions = {sequence.seq_id: sequence.num_preemptions for sequence in running}
        plan = self.scheduler.schedule(self.now_s)
        self.plans += [] if plan is None else [plan]
        invariants.i14_some_token_is_computed(self, plan, running, preemptions)
        if plan is not None:
            invariants.check_plan(self, plan)
            tenants.i20_turns_follow_the_counters(self, plan, preemptions)
            invariants.i15_wait_and_preemptions_are_bounded(self)
        self.check()
        return plan

    def planned(self) -> SchedulerOutput:
        """Begin a step that must have something to do."""
        plan = self.begin_step()
        assert plan is not None
        return plan

    def finish_step(self, broken_rows: frozenset[int] = frozenset(), *, is_out_of_memory: bool = False) -> None:
        """Execute and commit; `broken_rows` are indices into the rows of the plan, taken modulo their number."""
        plan = self._take_plan()
        self.steps.append((plan.num_tokens, is_out_of_memory))
        num_rows = len(plan.sequences) - plan.num_drafts
        plain = [index for index, row in enumerate(plan.sequences) if not row.num_drafts_before]
        nan_rows = {plain[index % num_rows] for index in broken_rows} | self._rows_after_broken_ones(plan)
        sampled = self.model.execute(plan, self.contexts(), nan_rows, self._wasted_rows(plan))
        owed = self._owed_rows(plan, sampled)
        broken = {plan.sequences[index].seq_id for index in nan_rows}
        self.broken_ids |= broken
        output = StepOutput(
            step_id=plan.step_id,
            sampled=sampled,
            duration_s=STEP_DURATION_S,
            was_out_of_memory=is_out_of_memory,
        )
        deltas = self.scheduler.commit(output, self.now_s)
        self._take_deltas(owed, deltas, broken)

    def fail_step(self) -> None:
        """The oldest step fails in every row."""
        self.finish_step(frozenset(range(len(self.plans[0].sequences))))

    def step(self, broken_rows: frozenset[int] = frozenset(), *, is_out_of_memory: bool = False) -> None:
        if self.begin_step() is not None:
            self.finish_step(broken_rows, is_out_of_memory=is_out_of_memory)

    def _take_plan(self) -> SchedulerOutput:
        return self.plans.pop(0)

    def _owed_rows(self, plan: SchedulerOutput, sampled: list[SampledToken | None]) -> list[ScheduledSequence]:
        """The rows whose tokens the callers hear: of live samples, and of drafts only those that came true in turn."""
        owed: list[ScheduledSequence] = []
        said: dict[int, list[int]] = {}
        for row, token in zip(plan.sequences, sampled, strict=True):
            log = self.logs[row.seq_id]
            tokens = said.setdefault(row.seq_id, [])
            is_said = row.num_drafts_before == 0 or (
                len(tokens) == row.num_drafts_before
                and tokens[-1] == row.token_ids[0]
                and len(log.token_ids) + len(tokens) < len(log.solo[0])
            )
            if token is not None and is_said and self._is_live(row):
                owed.append(row)
                tokens += [] if token.error else [token.token_id]
        return owed

    def _wasted_rows(self, plan: SchedulerOutput) -> set[int]:
        """Rows of samples that have ended since they were planned ahead: what they compute is for nobody."""
        rows = enumerate(plan.sequences)
        ahead = {index for index, row in rows if row.token_ids == [UNKNOWN_TOKEN] and not self._is_live(row)}
        return ahead | self._rows_after_broken_ones(plan)

    def _rows_after_broken_ones(self, plan: SchedulerOutput) -> set[int]:
        """Rows of samples that wrote broken numbers in the step before, and read them now."""
        return {index for index, row in enumerate(plan.sequences) if row.seq_id in self.broken_ids}

    def _is_live(self, row: ScheduledSequence) -> bool:
        return self.logs[row.seq_id].finish_reason is None

    def _take_deltas(self, owed: list[ScheduledSequence], deltas: list[GenerationDelta], broken: set[int]) -> None:
        invariants.i11_one_delta_each([self.logs[row.seq_id] for row in owed], deltas)
        for delta in deltas:
            log = self._log_of_delta(delta)
            invariants.i17_only_broken_rows_fail(delta, is_broken=log.sequence.seq_id in broken, error=BROKEN)
            self.deliver(delta)
        self.check()

    def deliver(self, delta: GenerationDelta) -> None:
        """Give a delta to the caller it is for."""
        log = self._log_of_delta(delta)
        invariants.i11_stream_is_whole(self, log, delta)
        log.token_ids += delta.token_ids
        log.num_cached_tokens = delta.num_cached_tokens
        log.finish_reason = delta.finish_reason
        samples = self.samples_of(log) if delta.finish_reason is not None else []
        if samples and all(sample.finish_reason is not None for sample in samples):
            self.rates.ended(log.request, sum(len(sample.token_ids) for sample in samples), self.now_s)
        invariants.i10_output_is_that_of_the_request_alone(log)

    def _log_of_delta(self, delta: GenerationDelta) -> SampleLog:
        key = (delta.request_id, delta.sample_index)
        logs = [log for log in self.live if (log.request.request_id, log.sample_index) == key]
        assert len(logs) == 1, f"{delta} is for nobody or comes after the end"
        return logs[0]

    # ---- the end

    def drain(self) -> None:
        """Run until nothing is left, at most as many steps as the remaining work allows."""
        while self.plans:
            self.finish_step()
        while self.scheduler.has_work:
            before = ends.remaining_work(self)
            self.step()
            ends.i18_drain_gets_closer(before, ends.remaining_work(self))
        ends.i13_nothing_is_left(self)
