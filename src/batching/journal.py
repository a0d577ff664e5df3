"""Why each sequence waited and what it shared its steps with, from a few sums that grow with every step. Pure.

The sums run for all: a sequence notes where they stand when it begins to wait or to decode, and the difference at the
end is its own. So a step costs the same however many wait. Owner: the Scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from batching.sequence import Sequence
from batching.step import ScheduledSequence, SchedulerOutput
from contracts.generation import FinishReason, GenerationRequest
from contracts.records import (
    MAX_CHUNKS,
    MAX_STEP_LINKS,
    MAX_WAITS,
    BlockHolder,
    Chunk,
    SampleRecord,
    StepLink,
    StepShare,
    Wait,
    WaitCause,
)

NUM_HOLDERS = 3
HOLDERS_EVERY = 32
"""Steps after which it is asked again who holds the blocks, while they are short."""
NUM_TURNS = 1024
"""Admissions that are remembered, to tell since when somebody has been passed over."""
_CAUSES: Final = (WaitCause.STEP, WaitCause.BLOCKS, WaitCause.BATCH, WaitCause.BUDGET)


class _Turn(NamedTuple):
    """One admission: whose it was, and where the sums stood."""

    number: int
    at_s: float
    tenant: str
    sums: tuple[float, ...]


class _OpenWait:
    """A stay in the queue that goes on."""

    __slots__ = ("began_s", "num_admitted", "num_ahead", "num_lost_tokens", "preempted_by", "sums")

    def __init__(self, began_s: float, sums: tuple[float, ...], num_ahead: int, num_admitted: int) -> None:
        self.began_s = began_s
        self.sums = sums
        self.num_ahead = num_ahead
        self.num_admitted = num_admitted
        self.preempted_by: GenerationRequest | None = None
        self.num_lost_tokens = 0


class Story:
    """What is noted of one sequence while it lives. Owner: the Journal."""

    __slots__ = (
        *("chunks", "decode", "decoding_since", "num_chunks", "num_waits"),
        *("open_wait", "sequence", "step_links", "waits"),
    )

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.waits: list[Wait] = []
        self.chunks: list[Chunk] = []
        self.step_links: list[StepLink] = []
        self.num_waits = self.num_chunks = 0
        self.open_wait: _OpenWait | None = None
        self.decode = StepShare()
        self.decoding_since: StepShare | None = None


class Journal:
    """Called by the scheduler at every turn of a sequence; `now_s` is set by it first."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sums = dict.fromkeys(_CAUSES, 0.0)
        self._cause = WaitCause.STEP
        self._since_s = 0.0
        self._num_admitted = 0
        self._turns: list[_Turn | None] = [None] * NUM_TURNS
        self._holders: list[BlockHolder] = []
        self._num_short_steps = 0
        self._steps = StepShare()
        self._stories: dict[int, Story] = {}
        self._step_began_s = self._step_ended_s = 0.0

    # ---- the turns of a sequence

    def queued(self, sequence: Sequence, num_ahead: int) -> None:
        """It begins to wait, for the first time or again."""
        story = self._stories.setdefault(sequence.seq_id, Story(sequence))
        if story.num_waits == 0 and sequence.sample_index and self.now_s > sequence.submitted_s:
            parked_s = self.now_s - sequence.submitted_s
            story.waits.append(Wait(sequence.submitted_s, self.now_s, {WaitCause.SIBLING: parked_s}, 0))
            story.num_waits = 1
        story.open_wait = _OpenWait(self.now_s, self._reading(), num_ahead, self._num_admitted)

    def preempted(self, sequence: Sequence, by: Sequence, num_lost_tokens: int) -> None:
        """It has just been queued again, because `by` needed its blocks."""
        story = self._stories.get(sequence.seq_id)
        if story is None or story.open_wait is None:
            return
        story.open_wait.preempted_by = by.request
        story.open_wait.num_lost_tokens = num_lost_tokens
        self._pause(story)

    def admitted(self, sequence: Sequence) -> None:
        """It has a place in the batch."""
        story = self._stories.get(sequence.seq_id)
        if story is None or story.open_wait is None:
            return
        is_new = story.open_wait.preempted_by is None  # one that returns to its old place overtakes nobody
        self._close_wait(story, self.now_s)
        if is_new:
            turn = _Turn(self._num_admitted, self.now_s, sequence.request.tenant.name, self._reading())
            self._turns[turn.number % NUM_TURNS] = turn
            self._num_admitted += 1

    def computed(self, sequence: Sequence, row: ScheduledSequence, plan: SchedulerOutput) -> None:
        """A part of its prompt, or of what it lost, has been computed by the step that has just been counted.

        After the last part its next step is a decode.
        """
        story = self._stories.get(sequence.seq_id)
        if story is None:
            return
        if row.is_sampling and story.decoding_since is None:
            story.decoding_since = self._steps
        story.num_chunks += 1
        if len(story.chunks) < MAX_CHUNKS:
            num_tokens = len(row.token_ids)
            others = plan.num_tokens - plan.num_decodes - num_tokens
            story.chunks.append(Chunk(self._step_began_s, self.now_s, num_tokens, len(plan.sequences), others))

    def ended(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> SampleRecord:
        """Its record; it is forgotten."""
        return self._record(sequence, self._stories.pop(sequence.seq_id, Story(sequence)), reason, error)

    def so_far(self, request_ids: Set[str], now_s: float) -> dict[str, list[SampleRecord]]:
        """The samples of these requests that live, as they are now."""
        self.now_s = max(self.now_s, now_s)
        told: dict[str, list[SampleRecord]] = {}
        for story in self._stories.values():
            request_id = story.sequence.request.request_id
            if request_id in request_ids:
                told.setdefault(request_id, []).append(self._record(story.sequence, story, None, None))
        return told

    def forget_all(self) -> None:
        """Nothing lives any more."""
        self._stories.clear()

    # ---- the steps

    def begin_step(self, now_s: float) -> None:
        """A step is being planned now; the time since the last one belongs to what stopped admission then."""
        self.now_s = now_s
        self._sums[self._cause] += self.now_s - self._since_s
        self._since_s = self.now_s

    def stop_admission(self, cause: WaitCause, running: Iterable[Sequence]) -> None:
        """Why whoever waits now goes on waiting."""
        self._cause = cause
        if cause is not WaitCause.BLOCKS:
            self._num_short_steps = 0
            return
        if self._num_short_steps % HOLDERS_EVERY == 0:
            largest = sorted(running, key=lambda held: -len(held.block_table.block_ids))[:NUM_HOLDERS]
            self._holders = [_holder(held) for held in largest]
        self._num_short_steps += 1

    def end_step(self, plan: SchedulerOutput, duration_s: float, now_s: float) -> None:
        """Count a step that has been computed. One that was planned ahead began when the one before it ended."""
        self._step_began_s = max(plan.began_s, self._step_ended_s)
        self.now_s = self._step_ended_s = now_s
        steps = self._steps
        self._steps = StepShare(
            steps.num_steps + 1,
            steps.num_rows + len(plan.sequences),
            steps.num_prefill_tokens + plan.num_tokens - plan.num_decodes,
            steps.step_s + duration_s,
        )

    def requests_in(self, plan: SchedulerOutput) -> dict[str, GenerationRequest]:
        """Request id to request, of those that share a step and still live."""
        found = (self._stories.get(row.seq_id) for row in plan.sequences)
        return {story.sequence.request.request_id: story.sequence.request for story in found if story is not None}

    def link_step(self, plan: SchedulerOutput, link: StepLink) -> None:
        """Every sequence of this step, which is not committed yet, remembers its span."""
        for row in plan.sequences:
            story = self._stories.get(row.seq_id)
            if story is not None and len(story.step_links) < MAX_STEP_LINKS:
                story.step_links.append(link)

    # ---- inside

    def _reading(self) -> tuple[float, ...]:
        """Where the sums stand now, the part of the turn that has passed included."""
        open_s = max(0.0, self.now_s - self._since_s)
        return tuple(self._sums[cause] + (open_s if cause is self._cause else 0.0) for cause in _CAUSES)

    def _seconds_of(self, wait: _OpenWait, tenant: str) -> dict[WaitCause, float]:
        """What kept it out until its turn by arrival; from there on, whoever was let in instead."""
        turn = self._missed_turn(wait)
        until = self._reading() if turn is None else turn.sums
        seconds = {cause: now - then for cause, now, then in zip(_CAUSES, until, wait.sums, strict=True) if now > then}
        if turn is not None and self.now_s > turn.at_s:
            seconds[WaitCause.PRIORITY if turn.tenant == tenant else WaitCause.SHARE] = self.now_s - turn.at_s
        return seconds

    def _missed_turn(self, wait: _OpenWait) -> _Turn | None:
        """The first admission beyond those that were ahead of it; None: there was none, or it is long forgotten."""
        number = wait.num_admitted + wait.num_ahead
        turn = self._turns[number % NUM_TURNS]
        return turn if turn is not None and turn.number == number else None

    def _wait(self, wait: _OpenWait, ended_s: float | None, tenant: str) -> Wait:
        seconds = self._seconds_of(wait, tenant)
        return Wait(
            began_s=wait.began_s,
            ended_s=ended_s,
            seconds=seconds,
            num_ahead=wait.num_ahead,
            num_overtaken_by=max(0, self._num_admitted - wait.num_admitted - wait.num_ahead),
            holders=self._holders if WaitCause.BLOCKS in seconds else [],
            preempted_by=None if wait.preempted_by is None else wait.preempted_by.request_id,
            preempter_tenant="" if wait.preempted_by is None else wait.preempted_by.tenant.name,
            num_lost_tokens=wait.num_lost_tokens,
        )

    def _close_wait(self, story: Story, ended_s: float | None) -> None:
        assert story.open_wait is not None  # noqa: S101 (the callers ask first)
        story.num_waits += 1
        if len(story.waits) < MAX_WAITS:
            story.waits.append(self._wait(story.open_wait, ended_s, story.sequence.request.tenant.name))
        story.open_wait = None

    def _pause(self, story: Story) -> None:
        """Steps from here on are not its own."""
        if story.decoding_since is not None:
            story.decode = _plus(story.decode, _minus(self._steps, story.decoding_since))
            story.decoding_since = None

    def _record(self, sequence: Sequence, story: Story, reason: FinishReason | None, error: str | None) -> SampleRecord:
        waits, num_waits = story.waits, story.num_waits
        if story.open_wait is not None:
            waits = [*waits, self._wait(story.open_wait, None, sequence.request.tenant.name)]
            num_waits += 1
        decode = story.decode
        if story.decoding_since is not None:
            decode = _plus(decode, _minus(self._steps, story.decoding_since))
        return SampleRecord(
            sample_index=sequence.sample_index,
            submitted_s=sequence.submitted_s,
            waits=list(waits),
            chunks=list(story.chunks),
            num_waits=num_waits,
            num_chunks=story.num_chunks,
            decode=decode,
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            num_output_tokens=sequence.num_output_tokens,
            num_preemptions=sequence.num_preemptions,
            first_token_s=sequence.first_token_s,
            observed_s=self.now_s,
            finished_s=None if reason is None else self.now_s,
            finish_reason=reason,
            error=error,
            step_links=list(story.step_links),
        )


def _holder(sequence: Sequence) -> BlockHolder:
    request = sequence.request
    return BlockHolder(request.request_id, len(sequence.block_table.block_ids), request.tenant.name)


def _minus(now: StepShare, then: StepShare) -> StepShare:
    return StepShare(
        now.num_steps - then.num_steps,
        now.num_rows - then.num_rows,
        now.num_prefill_tokens - then.num_prefill_tokens,
        now.step_s - then.step_s,
    )


def _plus(one: StepShare, other: StepShare) -> StepShare:
    return StepShare(
        one.num_steps + other.num_steps,
        one.num_rows + other.num_rows,
        one.num_prefill_tokens + other.num_prefill_tokens,
        one.step_s + other.step_s,
    )
