"""How long things took, counted into buckets as they end: queue, prefill, first token, tokens, whole requests. Pure.

Bounds are fixed, so that the numbers of all scrapes and all servers add up.
"""

from __future__ import annotations

from bisect import bisect_left

from contracts.latencies import Histogram, Latencies
from contracts.records import SampleRecord, WaitCause

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TOKENS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)


class Buckets:
    """One histogram that grows. A value counts in the first bucket whose bound it does not exceed."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` times the same value."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def snapshot(self) -> Histogram:
        return Histogram(list(self._bounds), self._counts.copy(), self._sum)


class LatencyBook:
    """Owner: the AsyncEngine; told of every sample that ends and of every step that decodes."""

    def __init__(self) -> None:
        self._queue = Buckets(SECONDS)
        self._prefill = Buckets(SECONDS)
        self._first_token = Buckets(SECONDS)
        self._inter_token = Buckets(TOKEN_SECONDS)
        self._decode = Buckets(SECONDS)
        self._whole = Buckets(SECONDS)
        self._prompt_tokens = Buckets(TOKENS)
        self._output_tokens = Buckets(TOKENS)
        self._ends: dict[str, int] = {}

    def end(self, sample: SampleRecord) -> None:
        """A sample has ended, however."""
        reason = "unknown" if sample.finish_reason is None else sample.finish_reason.value
        self._ends[reason] = self._ends.get(reason, 0) + 1
        finished_s = sample.latest_s
        self._whole.observe(finished_s - sample.submitted_s)
        self._prompt_tokens.observe(sample.num_prompt_tokens)
        self._output_tokens.observe(sample.num_output_tokens)
        admitted_s = next((wait.ended_s for wait in sample.waits if WaitCause.SIBLING not in wait.seconds), None)
        if admitted_s is not None:
            self._queue.observe(admitted_s - sample.submitted_s)
        if sample.first_token_s is not None:
            self._first_token.observe(sample.first_token_s - sample.submitted_s)
            self._decode.observe(finished_s - sample.first_token_s)
            if admitted_s is not None:
                self._prefill.observe(sample.first_token_s - admitted_s)

    def decode_step(self, gap_s: float, num_tokens: int) -> None:
        """So many sequences got a token `gap_s` seconds after their last one."""
        if num_tokens:
            self._inter_token.observe(gap_s, num_tokens)

    def snapshot(self) -> Latencies:
        return Latencies(
            queue_s=self._queue.snapshot(),
            prefill_s=self._prefill.snapshot(),
            time_to_first_token_s=self._first_token.snapshot(),
            inter_token_s=self._inter_token.snapshot(),
            decode_s=self._decode.snapshot(),
            request_s=self._whole.snapshot(),
            prompt_tokens=self._prompt_tokens.snapshot(),
            output_tokens=self._output_tokens.snapshot(),
            ends=dict(self._ends),
        )
