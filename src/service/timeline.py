"""Draws an explanation as text: sentences, then one line and one bar for each phase."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.explanation import Explanation, Phase

BAR_WIDTH = 40
MAX_PHASES = 40


def draw_timeline(explanation: Explanation) -> str:
    """Plain text of at most 120 columns but for ids, ending in a newline."""
    return "\n".join(_lines(explanation)) + "\n"


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.id}  ({explanation.request_id or 'no request id'})"
    if explanation.trace_id:
        yield f"trace {explanation.trace_url or explanation.trace_id}"
    yield ""
    yield from explanation.sentences
    yield ""
    for phase in explanation.phases[:MAX_PHASES]:
        yield _line(phase, explanation.total_ms)
    if len(explanation.phases) > MAX_PHASES:
        yield f"... and {len(explanation.phases) - MAX_PHASES} phases more"


def _line(phase: Phase, total_ms: float) -> str:
    end_ms = total_ms if phase.end_ms is None else phase.end_ms
    scale = BAR_WIDTH / total_ms if total_ms > 0 else 0.0
    begin, end = int(phase.start_ms * scale), int(end_ms * scale)
    bar = " " * begin + "█" * max(1, end - begin)
    details = "  ".join(f"{name} {value}" for name, value in phase.details.items())
    took = f"{end_ms - phase.start_ms:>9,.1f} ms"
    return f"{phase.start_ms:>10,.1f} ms  {bar:<{BAR_WIDTH + 1}} {phase.name:<9} {took}  {details}"
