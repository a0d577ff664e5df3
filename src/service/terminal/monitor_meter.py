"""What the monitor knows: rates between looks, who came and went, latencies. Pure; knows neither terminal nor HTTP."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import msgspec

from contracts.explanation import Explanation
from contracts.live import LiveCounters, LiveRow, LiveView

WINDOW_S = 5.0
"""Rates are over so much of the past."""
MAX_HISTORY = 240
MAX_CHANGES = 32
OTHERS = "another key's"
"""Stands for an id that this key may not see."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Over the window. None: nothing of it happened."""

    generated_per_s: float = 0.0
    prompt_per_s: float = 0.0
    requests_per_s: float = 0.0
    steps_per_s: float = 0.0
    step_ms: float | None = None
    batch_size: float | None = None
    cache_hit: float | None = None
    """Share of the prompt tokens that were in the cache; over everything where the window saw no prompt."""
    first_token_ms: float | None = None
    inter_token_ms: float | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A request that entered the batch, or left it."""

    kind: Literal["in", "out"]
    request: str
    tokens: int
    """Of its prompt where it entered, of its answer where it left."""
    age_s: float


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, of the requests that have ended among the last hundred."""

    num_requests: int
    p50: float
    p95: float
    p99: float


class Meter:
    """Owner: one monitor."""

    def __init__(self) -> None:
        self.look: LiveView | None = None
        self.history: deque[float] = deque(maxlen=MAX_HISTORY)
        """Tokens generated per second, look by look."""
        self.changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        """The newest first."""
        self.num_restarts = 0
        self._past: deque[tuple[float, LiveCounters]] = deque()

    def add(self, look: LiveView) -> None:
        """The next look. Counters that go back are those of another engine: everything begins anew."""
        last = self.look
        if last is not None and look.counters.num_steps < last.counters.num_steps:
            self._past.clear()
            self.num_restarts += 1
            last = None
        if last is not None:
            self._note_changes(last, look)
            elapsed_s = look.at - last.at
            made = look.counters.num_generated_tokens - last.counters.num_generated_tokens
            self.history.append(made / elapsed_s if elapsed_s > 0 else 0.0)
        self.look = look
        self._past.append((look.at, look.counters))
        while len(self._past) > 2 and look.at - self._past[0][0] > WINDOW_S:
            self._past.popleft()

    @property
    def rates(self) -> Rates:
        """What happened within the window."""
        if len(self._past) < 2:
            return Rates()
        (began_s, old), (now_s, new) = self._past[0], self._past[-1]
        elapsed_s = max(now_s - began_s, 1e-6)
        num_steps = new.num_steps - old.num_steps
        prompt = new.num_prompt_tokens - old.num_prompt_tokens
        return Rates(
            generated_per_s=(new.num_generated_tokens - old.num_generated_tokens) / elapsed_s,
            prompt_per_s=prompt / elapsed_s,
            requests_per_s=(new.num_requests - old.num_requests) / elapsed_s,
            steps_per_s=num_steps / elapsed_s,
            step_ms=_ratio(1000 * (new.step_time_s - old.step_time_s), num_steps),
            batch_size=_ratio(new.num_scheduled_seqs - old.num_scheduled_seqs, num_steps),
            cache_hit=_ratio(new.num_cached_tokens - old.num_cached_tokens, prompt)
            if prompt
            else _ratio(new.num_cached_tokens, new.num_prompt_tokens),
            first_token_ms=_mean_ms(new.first_token_s - old.first_token_s, new.num_first_tokens - old.num_first_tokens),
            inter_token_ms=_mean_ms(new.inter_token_s - old.inter_token_s, new.num_inter_tokens - old.num_inter_tokens),
        )

    def _note_changes(self, last: LiveView, look: LiveView) -> None:
        before = {row.seq: row for row in last.running}
        now = {row.seq: row for row in look.running}
        for seq in before.keys() - now.keys():
            row = before[seq]
            self.changes.appendleft(_change("out", row, row.output_tokens))
        for seq in now.keys() - before.keys():
            row = now[seq]
            self.changes.appendleft(_change("in", row, row.prompt_tokens))


def _change(kind: Literal["in", "out"], row: LiveRow, tokens: int) -> Change:
    return Change(kind=kind, request=row.request or OTHERS, tokens=tokens, age_s=row.age_s)


def quantiles(requests: list[Explanation]) -> dict[str, Quantiles]:
    """Of queue, first token and the whole; nothing where no request has ended well."""
    ended = [request for request in requests if request.status == "completed"]
    values = {
        "queue": [request.queue_ms for request in ended],
        "first": [request.ttft_ms for request in ended if request.ttft_ms is not None],
        "total": [request.total_ms for request in ended],
    }
    return {
        name: Quantiles(num_requests=len(found), p50=_rank(found, 0.5), p95=_rank(found, 0.95), p99=_rank(found, 0.99))
        for name, found in values.items()
        if found
    }


def _rank(values: list[float], share: float) -> float:
    """The smallest value that at least so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean_ms(seconds: float, number: int) -> float | None:
    return None if number <= 0 else 1000 * seconds / number
