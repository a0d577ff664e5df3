"""The limits a scheduler works under and the counts it keeps; data only."""

from __future__ import annotations

import msgspec

from contracts.generation import FinishReason


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one engine; see contracts.settings.EngineSettings for their meaning."""

    num_blocks: int
    block_size: int
    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 1024
    max_prefill_tokens_while_decoding: int = 512
    max_queued_requests: int = 1024
    max_queued_tokens: int = 1_000_000
    priority_ageing_s: float = 10.0
    enable_prefix_caching: bool = True
    num_draft_tokens: int = 0
    """Most drafts of a sequence in one step; 0: there are none."""
    max_steps_in_flight: int = 1
    """Two where a step is planned before the tokens of the last one are known."""


class Counters:
    """What happened since the start; the scheduler adds, anyone reads."""

    __slots__ = (
        "num_aborted",
        "num_accepted_drafts",
        "num_cached_tokens",
        "num_drafts",
        "num_failed",
        "num_finished",
        "num_generated_tokens",
        "num_integrity_faults",
        "num_out_of_memory",
        "num_preemptions",
        "num_prompt_tokens",
        "num_requests",
        "num_scheduled_seqs",
        "num_steps",
        "step_time_s",
    )

    def __init__(self) -> None:
        self.num_requests = self.num_finished = self.num_aborted = self.num_failed = 0
        self.num_preemptions = self.num_prompt_tokens = self.num_cached_tokens = self.num_generated_tokens = 0
        self.num_steps = self.num_scheduled_seqs = self.num_out_of_memory = self.num_integrity_faults = 0
        self.num_drafts = self.num_accepted_drafts = 0
        self.step_time_s = 0.0

    def count_end(self, reason: FinishReason) -> None:
        """One sample ended."""
        if reason in (FinishReason.ABORT, FinishReason.CANCELLED):
            self.num_aborted += 1
        elif reason is FinishReason.ERROR:
            self.num_failed += 1
        else:
            self.num_finished += 1
