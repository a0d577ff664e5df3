"""One growing row of tokens: what a sample of a request has, has computed, and still has to compute.

Owns no policy: the scheduler decides, and it is the only writer of everything here. What the runner and the caller are
to see of a sequence, its row and its deltas, is made here.
"""

from __future__ import annotations

import enum
import math

from batching.block_table import BlockTable
from batching.prompt_lookup import PromptLookup
from batching.scheduler_config import SchedulerConfig
from batching.step import UNKNOWN_TOKENS, ScheduledSequence
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, PhaseTimes, TokenLogprob
from contracts.records import SampleRecord

_SEED_MASK = 2**64 - 1
_SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the increment of SplitMix64 (Steele et al. 2014)


class SequenceStatus(enum.Enum):
    """Life cycle: PARKED -> WAITING -> RUNNING -> FINISHED, with RUNNING -> WAITING when preempted."""

    PARKED = "parked"
    """Waits until sample 0 of its request has computed the prompt whose blocks it will share."""
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """One sample of one request. Owner: the Scheduler.

    Invariant while RUNNING: the KV of positions 0 .. num_computed_tokens - 1 lies in the blocks of `block_table`.
    """

    __slots__ = (
        "block_table",
        "deadline_s",
        "first_token_s",
        "has_penalties",
        "limit",
        "lookup",
        "num_awaited_tokens",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_planned_tokens",
        "num_preemptions",
        "num_prompt_tokens",
        "order",
        "request",
        "sample_index",
        "scheduled_s",
        "seed",
        "seq_id",
        "status",
        "stop_ids",
        "submitted_s",
        "token_ids",
    )

    def __init__(
        self,
        seq_id: int,
        request: GenerationRequest,
        sample_index: int,
        *,
        block_table: BlockTable,
        stop_ids: frozenset[int],
        submitted_s: float,
        order: float,
    ) -> None:
        self.seq_id = seq_id
        self.request = request
        self.sample_index = sample_index
        self.has_penalties = request.sampling.has_penalties
        self.seed = (request.sampling.seed + sample_index * _SEED_STEP) & _SEED_MASK
        self.token_ids = list(request.prompt_token_ids)
        """Prompt, then output; commit appends."""
        self.num_prompt_tokens = len(request.prompt_token_ids)
        self.num_computed_tokens = 0
        """Grows by commit; back to 0 at preemption."""
        self.num_planned_tokens = 0
        """Tokens that the steps in flight compute."""
        self.num_awaited_tokens = 0
        """1 while a step in flight samples its next token, which nobody knows yet."""
        self.limit = self.max_len
        """Tokens with which it ends, at the latest."""
        self.block_table = block_table
        self.stop_ids = stop_ids
        self.status = SequenceStatus.PARKED if sample_index else SequenceStatus.WAITING
        self.order = (order, seq_id)
        """Smaller goes first, for admission and for keeping blocks; constant for life, so that waiting ages alike."""
        self.submitted_s = submitted_s
        self.deadline_s = math.inf if request.timeout_s is None else submitted_s + request.timeout_s
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.num_cached_tokens = 0
        """Prompt tokens found in the prefix cache at the first admission."""
        self.num_preemptions = 0
        self.lookup: PromptLookup | None = None
        """Made when drafts are first asked for."""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_remaining_tokens(self) -> int:
        """Known tokens whose KV is not computed yet: 1 for a sequence that decodes."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_decoding(self) -> bool:
        return self.num_remaining_tokens == 1 and self.num_output_tokens > 0

    @property
    def next_len(self) -> int:
        """Tokens it will have when the steps in flight are over, should it go on then."""
        return len(self.token_ids) + self.num_awaited_tokens

    @property
    def num_unplanned_tokens(self) -> int:
        """Tokens to compute that no step in flight computes."""
        return len(self.token_ids) + self.num_awaited_tokens - self.num_computed_tokens - self.num_planned_tokens

    @property
    def decode_len(self) -> int:
        """Tokens it has once its next step, a decode, has computed the last of them; 0: its next step is no decode.

        That is so before its first output token, and where the steps in flight give it its last one.
        """
        num_tokens = len(self.token_ids) + self.num_awaited_tokens
        is_last = num_tokens - self.num_computed_tokens - self.num_planned_tokens == 1
        return num_tokens if is_last and self.num_prompt_tokens < num_tokens < self.limit else 0

    @property
    def max_len(self) -> int:
        """Most tokens this sequence can ever have."""
        return self.num_prompt_tokens + self.request.sampling.max_tokens

    def times(self, finished_s: float | None) -> PhaseTimes:
        return PhaseTimes(
            submitted_s=self.submitted_s,
            scheduled_s=self.scheduled_s,
            first_token_s=self.first_token_s,
            finished_s=finished_s,
            num_preemptions=self.num_preemptions,
        )

    def plan(self, num_tokens: int) -> ScheduledSequence:
        """The next `num_tokens` tokens to compute, as the runner sees them; they count as planned from here on.

        The block table is shared, for it only grows while the row is in flight: `BlockTable.clear` begins a new list.
        """
        token_ids, num_prompt_tokens = self.token_ids, self.num_prompt_tokens
        num_known = len(token_ids)
        next_len = num_known + self.num_awaited_tokens
        start = self.num_computed_tokens + self.num_planned_tokens
        end = start + num_tokens
        is_sampling = end == next_len
        self.num_planned_tokens += num_tokens
        self.num_awaited_tokens += is_sampling
        return ScheduledSequence(
            seq_id=self.seq_id,
            token_ids=token_ids[start:end] if start < num_known else UNKNOWN_TOKENS,
            start=start,
            block_ids=self.block_table.block_ids,
            is_sampling=is_sampling,
            sampling=self.request.sampling,
            seed=self.seed,
            num_output_tokens=next_len - num_prompt_tokens,
            prompt_token_ids=token_ids[:num_prompt_tokens] if self.has_penalties else None,
            output_token_ids=token_ids[num_prompt_tokens:] if self.has_penalties else None,
        )

    def plan_drafts(self, num_drafts: int) -> list[ScheduledSequence]:
        """Rows for what may follow the token that has just been planned, the only one of a decode."""
        if self.lookup is None:
            self.lookup = PromptLookup()
        return [
            ScheduledSequence(
                seq_id=self.seq_id,
                token_ids=[token_id],
                start=self.num_computed_tokens + number,
                block_ids=self.block_table.block_ids,
                is_sampling=True,
                sampling=self.request.sampling,
                seed=self.seed,
                num_output_tokens=self.num_output_tokens + number,
                num_drafts_before=number,
            )
            for number, token_id in enumerate(self.lookup.drafts(self.token_ids, num_drafts), 1)
        ]

    def token_delta(self, token_id: int, logprob: TokenLogprob | None) -> GenerationDelta:
        """What the caller hears of a step that gives one more token and no end."""
        return GenerationDelta(
            request_id=self.request.request_id,
            sample_index=self.sample_index,
            token_ids=[token_id],
            logprobs=None if logprob is None else [logprob],
            num_cached_tokens=self.num_cached_tokens,
        )

    def delta(
        self,
        finish_reason: FinishReason | None,
        now_s: float,
        *,
        token_ids: list[int],
        logprobs: list[TokenLogprob] | None = None,
        error: str | None = None,
        record: SampleRecord | None = None,
    ) -> GenerationDelta:
        """What the caller hears of one step or of the end; STOP is an end by the last of `token_ids`, if any."""
        return GenerationDelta(
            request_id=self.request.request_id,
            sample_index=self.sample_index,
            token_ids=token_ids,
            logprobs=logprobs,
            num_cached_tokens=self.num_cached_tokens,
            finish_reason=finish_reason,
            ended_by_token=finish_reason is FinishReason.STOP and bool(token_ids),
            error=error,
            times=None if finish_reason is None else self.times(now_s),
            record=record,
        )


def sequence_of(
    request: GenerationRequest,
    sample_index: int,
    config: SchedulerConfig,
    *,
    seq_id: int,
    submitted_s: float,
    order: float,
) -> Sequence:
    """One sample of a request just submitted, with an empty block table and everything that ends it."""
    # Without the prefix cache, a salt of its own lets the samples of one request still share their prompt.
    salt = f"shared:{request.cache_salt}" if config.enable_prefix_caching else f"own:{request.request_id}"
    stop_ids = frozenset(request.sampling.stop_token_ids)
    if not request.sampling.ignore_eos:
        stop_ids |= config.eos_token_ids
    sequence = Sequence(
        seq_id,
        request,
        sample_index,
        block_table=BlockTable(config.block_size, salt),
        stop_ids=stop_ids,
        submitted_s=submitted_s,
        order=order,
    )
    sequence.limit = min(sequence.limit, config.max_model_len)
    return sequence
