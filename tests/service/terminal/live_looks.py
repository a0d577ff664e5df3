"""Looks at an engine for tests: counters that have moved by so much, sequences that run or wait."""

from __future__ import annotations

from typing import Any

from contracts.explanation import Explanation
from contracts.live import LiveCounters, LiveRow, LiveView, LiveWaiting

ZERO = dict.fromkeys(LiveCounters.__struct_fields__, 0)


def counters(**values: Any) -> LiveCounters:
    return LiveCounters(**{**ZERO, **values})


def row(seq: int, **values: Any) -> LiveRow:
    given: dict[str, Any] = {
        **{"request": f"cmpl-{seq:032d}", "sample": 0, "key": "a", "phase": "decode", "prompt_tokens": 10},
        **{"cached_tokens": 0, "computed_tokens": 12, "output_tokens": 2, "max_tokens": 50, "num_blocks": 1},
        **{"num_preemptions": 0, "age_s": 1.5, **values},
    }
    return LiveRow(seq=seq, **given)


def waiting(seq: int) -> LiveWaiting:
    return LiveWaiting(
        seq=seq, request=f"cmpl-{seq:032d}", sample=0, key="a", prompt_tokens=99, is_preempted=False, age_s=0.2
    )


def look(at: float, running: list[LiveRow] | None = None, **values: Any) -> LiveView:
    given: dict[str, Any] = {
        **{"model": "pico", "period_s": 0.25, "block_size": 16, "num_blocks": 100, "num_free_blocks": 60},
        **{"num_cached_blocks": 20, "runs": [], "shared": [], "waiting": [], "num_waiting": 0, "max_num_seqs": 8},
        **{"counters": counters(), **values},
    }
    return LiveView(at=at, running=running or [], **given)


def explanation(number: int, **values: Any) -> Explanation:
    given: dict[str, Any] = {
        **{"id": f"cmpl-{number:032d}", "request_id": str(number), "trace_id": None, "model": "pico", "key": ""},
        **{"submitted": 1000.0 + number, "status": "completed", "finish_reason": "stop", "queue_position": None},
        **{"detached": False, "total_ms": 100.0 * number, "queue_ms": 1.0, "ttft_ms": 10.0, "decode_ms": 9.0},
        **{"prompt_tokens": 10, "cached_tokens": 0, "completion_tokens": 5, "preemptions": 0, "main_cause": "decode"},
        **{"sentences": [], "phases": [], **values},
    }
    return Explanation(**given)
