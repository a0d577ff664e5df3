"""Why a request took as long as it did, for people and programs; what GET /v1/requests answers with."""

from __future__ import annotations

from typing import Literal

import msgspec


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a request's life. Milliseconds since its submission."""

    name: str
    """queue, preempted, prefill, decode."""
    sample: int
    start_ms: float
    end_ms: float | None
    """None: it goes on."""
    details: dict[str, int | float | str]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the engine."""

    id: str
    """The reply's id; with several prompts, one for each."""
    request_id: str
    """x-request-id of the HTTP request."""
    trace_id: str | None
    trace_url: str | None = None
    """Its page in Jaeger, where the server knows Jaeger's address."""
    model: str
    key: str
    """Label of the API key; empty without keys."""
    submitted: float
    """Unix time in seconds."""
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    finish_reason: str | None
    """How it ended: stop, length, abort, cancelled, deadline, error, lost; several with commas between. Null while it
    waits or runs."""
    queue_position: int | None
    """Sequences that will be let into the batch before it; null when it does not wait."""
    detached: bool
    """It goes on when its client is gone."""
    total_ms: float
    queue_ms: float
    ttft_ms: float | None
    """From submission to the first token."""
    decode_ms: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int
    main_cause: str
    """The largest part of the time, in a word or two."""
    sentences: list[str]
    phases: list[Phase]


class ExplanationList(msgspec.Struct, frozen=True, kw_only=True):
    """Several, in the order that was asked for."""

    object: str = "list"
    data: list[Explanation]
