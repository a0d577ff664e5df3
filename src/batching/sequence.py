"""One growing row of tokens: what a sample of a request has, has computed, and still has to compute.

Owns no policy: the scheduler decides, and it is the only writer of everything here.
"""

from __future__ import annotations

import enum

from batching.block_table import BlockTable
from contracts.generation import GenerationRequest, PhaseTimes

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
        "num_cached_tokens",
        "num_computed_tokens",
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
        self.seed = (request.sampling.seed + sample_index * _SEED_STEP) & _SEED_MASK
        self.token_ids = list(request.prompt_token_ids)
        """Prompt, then output; commit appends."""
        self.num_prompt_tokens = len(request.prompt_token_ids)
        self.num_computed_tokens = 0
        """Grows by commit; back to 0 at preemption."""
        self.block_table = block_table
        self.stop_ids = stop_ids
        self.status = SequenceStatus.PARKED if sample_index else SequenceStatus.WAITING
        self.order = (order, seq_id)
        """Smaller goes first, for admission and for keeping blocks; constant for life, so that waiting ages alike."""
        self.submitted_s = submitted_s
        self.deadline_s = None if request.timeout_s is None else submitted_s + request.timeout_s
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.num_cached_tokens = 0
        """Prompt tokens found in the prefix cache at the first admission."""
        self.num_preemptions = 0

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
