"""What one request did, as plain data that crosses from a loader process to the report. All times are monotonic."""

from __future__ import annotations

import msgspec


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request's measurements; written by the exchange that ran it, read-only afterwards."""

    index: int
    prompt_len: int
    """Prompt tokens asked for; `prompt_tokens` is what the server counted."""
    output_len: int
    started_s: float
    """When it was sent; in an open loop when it was due, so that a late loader counts against nobody but shows."""
    first_text_s: float | None = None
    last_text_s: float | None = None
    finished_s: float = 0.0
    """When the last byte arrived, or the failure was noticed."""
    gaps_s: list[float] = []
    """Between successive socket reads that brought text, never divided by the number of tokens in them."""
    num_text_events: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    status: int = 0
    """Of the reply; 0 where no head came."""
    retry_after_s: float | None = None
    """What a refusal says of when to try again."""

    @property
    def num_output_tokens(self) -> int:
        """Tokens as the server counted them, else text events."""
        return self.num_text_events if self.completion_tokens is None else self.completion_tokens

    @property
    def ttft_s(self) -> float | None:
        """Time to the first text."""
        return None if self.first_text_s is None else self.first_text_s - self.started_s

    @property
    def e2e_s(self) -> float:
        """Time to the last byte."""
        return self.finished_s - self.started_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for an answer of one token."""
        if self.first_text_s is None or self.last_text_s is None or self.num_output_tokens < 2:
            return None
        return (self.last_text_s - self.first_text_s) / (self.num_output_tokens - 1)


class LoadedRound(msgspec.Struct, frozen=True, kw_only=True):
    """One level run once on one server."""

    records: list[RequestRecord]
    health_s: list[float] = []
    """Latencies of GET /health meanwhile; empty where the server has none."""
    cpu_s: float = 0.0
    """Processor time that the loader itself took; near its wall time, the loader was the bottleneck."""
