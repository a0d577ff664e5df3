"""Histograms of an engine since its start, as they travel to whoever shows them."""

from __future__ import annotations

import msgspec


class Histogram(msgspec.Struct, frozen=True, array_like=True):
    """Counts by bucket, not cumulated; the last one has no upper bound."""

    bounds: list[float] = []
    counts: list[int] = []
    sum: float = 0.0


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, or tokens where the name says so; one value for each sample, in inter_token_s for each token."""

    queue_s: Histogram = Histogram()
    """From submission to the first place in the batch."""
    prefill_s: Histogram = Histogram()
    """From there to the first token."""
    time_to_first_token_s: Histogram = Histogram()
    inter_token_s: Histogram = Histogram()
    decode_s: Histogram = Histogram()
    """From the first token to the end."""
    request_s: Histogram = Histogram()
    prompt_tokens: Histogram = Histogram()
    output_tokens: Histogram = Histogram()
    ends: dict[str, int] = {}
    """FinishReason's value, to the samples that ended so."""
