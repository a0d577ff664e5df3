"""Draws an explanation as text: sentences, then one line and one bar for each phase."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.explanation import Explanation, Phase

BAR_WIDTH = 40
MIN_BAR_WIDTH = 10
MAX_PHASES = 40
_REST_OF_LINE = 43
"""Columns of a line beside its bar and its details."""


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
    yield from draw_phases(explanation)


def draw_phases(explanation: Explanation, width: int | None = None) -> Iterator[str]:
    """One line and one bar for each; in a terminal of `width` columns without what does not fit."""
    bar_width = BAR_WIDTH if width is None else min(BAR_WIDTH, width - _REST_OF_LINE)
    for phase in explanation.phases[:MAX_PHASES]:
        line = _line(phase, explanation.total_ms, bar_width)
        details = "  ".join(f"{name} {value}" for name, value in phase.details.items())
        yield f"{line}  {details}" if width is None or len(line) + 2 + len(details) <= width else line
    if len(explanation.phases) > MAX_PHASES:
        yield f"... and {len(explanation.phases) - MAX_PHASES} phases more"


def _line(phase: Phase, total_ms: float, bar_width: int) -> str:
    end_ms = total_ms if phase.end_ms is None else phase.end_ms
    scale = bar_width / total_ms if total_ms > 0 else 0.0
    begin, end = int(phase.start_ms * scale), int(end_ms * scale)
    bar = " " * begin + "█" * max(1, end - begin)
    took = f"{phase.name:<9} {end_ms - phase.start_ms:>9,.1f} ms"
    return f"{phase.start_ms:>10,.1f} ms  {bar:<{bar_width + 1}} {took}" if bar_width >= MIN_BAR_WIDTH else took
