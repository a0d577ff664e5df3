"""The limits a scheduler works under and the counts it keeps; data only."""

from __future__ import annotations

import msgspec


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


class Counters:
    """What happened since the start; the scheduler adds, anyone reads."""

    __slots__ = (
        "num_aborted",
        "num_cached_tokens",
        "num_failed",
        "num_finished",
        "num_generated_tokens",
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
        self.num_steps = self.num_scheduled_seqs = 0
        self.step_time_s = 0.0
