"""Wire structs of RuvonInference: text completion with two options of its own, and the queue as it named it."""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts.compat.picollm import TopPOrOff
from contracts.openai.completions import CompletionRequest


class CachedCompletionRequest(CompletionRequest, frozen=True, kw_only=True):
    """The body of POST /completions: OpenAI's, and two options that the server decides; the reply says so."""

    top_p: TopPOrOff | None = None
    use_cache: bool | None = None
    attention_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None


class RequestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Times are Unix seconds, durations seconds; null where it is not so far."""

    id: str
    status: Literal["queued", "processing", "completed", "failed"]
    created_at: float
    started_at: float | None
    completed_at: float | None
    wait_time: float | None
    processing_time: float | None
    total_time: float
    error: str | None
    """How it ended, where it failed or was cancelled."""
