"""Draws what `quire ps` shows; a narrow terminal gets fewer columns, never wrapped ones."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.explanation import Explanation
from contracts.openai.models import ModelCard
from contracts.overview import Overview
from contracts.sizes import format_bytes
from service.terminal.overview import why_now

STYLES = {"running": "green", "queued": "yellow", "failed": "bold red", "cancelled": "dim", "completed": ""}
NARROW, WIDE = 56, 100
_NARROW_REST = 20
"""Columns of state and age, with their gaps."""
_Cell = Callable[[Explanation, float], str]


class _Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cell: _Cell
    min_width: int = 0
    """Of the terminal."""
    is_number: bool = False


_COLUMNS = (
    _Column(name="ID", cell=lambda one, now_s: one.id),
    _Column(name="MODEL", cell=lambda one, now_s: one.model, min_width=WIDE),
    _Column(name="STATE", cell=lambda one, now_s: one.status),
    _Column(name="POS", cell=lambda one, now_s: _number(one.queue_position), min_width=NARROW, is_number=True),
    _Column(name="PROMPT", cell=lambda one, now_s: str(one.prompt_tokens), min_width=NARROW, is_number=True),
    _Column(name="CACHED", cell=lambda one, now_s: str(one.cached_tokens), min_width=WIDE, is_number=True),
    _Column(name="NEW", cell=lambda one, now_s: str(one.completion_tokens), min_width=NARROW, is_number=True),
    _Column(name="TOOK", cell=lambda one, now_s: format_seconds(one.total_ms / 1000), min_width=WIDE, is_number=True),
    _Column(name="AGE", cell=lambda one, now_s: format_seconds(now_s - one.submitted), is_number=True),
    _Column(name="WHY", cell=lambda one, now_s: why_now(one), min_width=72),
)


def draw_overview(overview: Overview, now_s: float, width: int) -> RenderableType:
    """`now_s`: Unix time."""
    parts: list[RenderableType] = [_draw_models(overview.models, width), Text()]
    if overview.requests:
        parts.append(_draw_requests(overview.requests, now_s, width))
    else:
        parts.append(Text("No requests yet.", style="dim"))
    return Group(*parts)


def _draw_models(models: list[ModelCard], width: int) -> Table:
    table = _table("MODEL", "STATE", "MEMORY")
    is_wide = width >= NARROW
    if is_wide:
        table.add_column("CONTEXT", justify="right", no_wrap=True)
        table.add_column("LOADED IN", justify="right", no_wrap=True)
    for model in models:
        name = Text(model.id, overflow="ellipsis")
        name.append(" (default)" if model.is_default and is_wide else "", style="dim")
        state = model.state.value
        if model.progress is not None and model.progress.stage:
            state += f": {model.progress.stage}"
        memory = "?" if model.memory_bytes is None else format_bytes(model.memory_bytes)
        more = (_number(model.max_model_len) or "?", "" if model.load_s is None else format_seconds(model.load_s))
        table.add_row(
            name, Text(state, style="green" if state == "ready" else "dim"), memory, *(more if is_wide else ())
        )
    return table


def _draw_requests(requests: list[Explanation], now_s: float, width: int) -> Table:
    columns = [column for column in _COLUMNS if width >= column.min_width]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=any(one.name == "WHY" for one in columns))
    for column in columns:
        table.add_column(
            column.name,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column.name == "WHY" else None,
            min_width=10 if column.name == "WHY" else None,
        )
    for request in requests:
        style = STYLES[request.status]
        if width < WIDE:
            request = msgspec.structs.replace(request, id=shorten(request.id, min(24, width - _NARROW_REST)))
        table.add_row(
            *(Text(column.cell(request, now_s), style=style if column.name == "STATE" else "") for column in columns)
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if name == "MEMORY" else "left")
    return table


def shorten(text: str, room: int) -> str:
    """At most so many characters."""
    return text if len(text) <= room else f"{text[: max(1, room - 1)]}…"


def _number(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def format_seconds(seconds: float) -> str:
    """Short: 250 ms, 4.2 s, 3 min, 2 h, 5 d."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return ""
