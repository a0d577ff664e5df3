"""Draws what the monitor knows, for any width from 30 columns on; without colours it says the same. Pure."""

from __future__ import annotations

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.live import LiveView
from service.terminal.monitor_meter import OTHERS, Meter, Quantiles
from service.terminal.overview_table import format_seconds, shorten

WIDE = 76
"""Columns from which on two things stand side by side."""


class Glyphs(msgspec.Struct, frozen=True):
    """What bars are made of."""

    used: str
    cached: str
    empty: str
    levels: str


_SPARK = "t/s "
_NARROW_REST = 14
"""Columns of tokens and age, with their gaps."""
UNICODE = Glyphs("█", "▒", "░", " ▁▂▃▄▅▆▇█")
ASCII = Glyphs("#", "=", ".", " .:-=+*#@")


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is drawn."""

    url: str
    meter: Meter
    quantiles: dict[str, Quantiles] = {}
    problem: str | None = None
    """Why there is nothing new."""
    hint: str = ""
    """How to leave."""


def draw_monitor(scene: Scene, width: int, height: int, *, is_unicode: bool = True) -> RenderableType:
    """`height`: lines that may be used."""
    glyphs = UNICODE if is_unicode else ASCII
    look = scene.meter.look
    parts: list[RenderableType] = [_head(scene, look, width)]
    if scene.problem is not None:
        parts.append(Text(scene.problem, style="bold yellow"))
    if look is None:
        parts.append(Text("Waiting for a first look at the engine ...", style="dim"))
        return Group(*parts)
    if scene.problem is not None:
        parts.append(Text("As it was last seen:", style="dim"))
    parts += [
        *_rates(scene.meter, look, width, glyphs),
        _blocks(look, width, glyphs),
        *_quantile_lines(scene.quantiles, width),
    ]
    room = height - len(parts) - (4 if width < WIDE else 3) - (len(scene.quantiles) if width < WIDE else 0)
    parts += _batch(look, width, max(2, room * 2 // 3))
    parts += _changes(scene.meter, width, max(2, room - min(len(look.running) + 1, room * 2 // 3) - 2))
    return Group(*parts)


def _head(scene: Scene, look: LiveView | None, width: int) -> Text:
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(look.model if look is not None else "quire", style="bold")
    if width >= 50:
        head.append(f"  {scene.url}", style="dim")
    if scene.meter.num_restarts:
        head.append(f"  restarted {scene.meter.num_restarts}x", style="yellow")
    if scene.hint:
        head.append(f"  {scene.hint}", style="dim")
    return head


def _rates(meter: Meter, look: LiveView, width: int, glyphs: Glyphs) -> list[RenderableType]:
    rates = meter.rates
    facts = [
        ("tokens/s", f"{rates.generated_per_s:,.0f}"),
        ("prompt/s", f"{rates.prompt_per_s:,.0f}"),
        ("running", f"{len(look.running)} of {look.max_num_seqs}"),
        ("waiting", f"{look.num_waiting}"),
        ("requests/s", f"{rates.requests_per_s:.1f}"),
        ("batch", _one(rates.batch_size, "{:.1f}")),
        ("step", _one(rates.step_ms, "{:.1f} ms")),
        ("cache hits", _one(None if rates.cache_hit is None else 100 * rates.cache_hit, "{:.0f} %")),
        ("first token", _one(rates.first_token_ms, "{:.0f} ms")),
        ("next token", _one(rates.inter_token_ms, "{:.1f} ms")),
        ("preempted", f"{look.counters.num_preemptions}"),
        ("requests", f"{look.counters.num_requests:,}"),
    ]
    per_row = 4 if width >= WIDE else 2 if width >= 44 else 1
    table = Table.grid(padding=(0, 1), expand=width >= 44)
    for _ in range(per_row):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True, justify="left", ratio=1 if width >= 44 else None)
    shown = facts if width >= 44 else facts[:8]
    for start in range(0, len(shown), per_row):
        table.add_row(*(cell for pair in shown[start : start + per_row] for cell in pair))
    line = _sparkline(list(meter.history), width - len(_SPARK) - 1, glyphs)
    return [table, Text.assemble((_SPARK, "dim"), (line, "green"), no_wrap=True)]


def _sparkline(values: list[float], width: int, glyphs: Glyphs) -> str:
    shown = values[-max(1, width) :]
    top = max(shown, default=0.0)
    if top <= 0:
        return glyphs.levels[1] * len(shown)
    last = len(glyphs.levels) - 1
    return "".join(glyphs.levels[max(1, round(value / top * last))] for value in shown)


def _blocks(look: LiveView, width: int, glyphs: Glyphs) -> Text:
    total = max(1, look.num_blocks)
    used, cached = look.num_blocks - look.num_free_blocks, look.num_cached_blocks
    told = f" {100 * used / total:.0f} %" + (f" of {look.num_blocks:,} blocks" if width >= 50 else "")
    told += f", {100 * cached / total:.0f} % cached" if width >= 60 else ""
    room = max(6, width - len(told) - len("KV  ") - 1)
    num_used = min(room, -(-used * room // total))
    num_cached = min(room - num_used, -(-cached * room // total))
    return Text.assemble(
        ("KV  ", "dim"),
        (glyphs.used * num_used, "cyan"),
        (glyphs.cached * num_cached, "blue"),
        (glyphs.empty * (room - num_used - num_cached), "dim"),
        told,
        no_wrap=True,
    )


def _quantile_lines(quantiles: dict[str, Quantiles], width: int) -> list[RenderableType]:
    if not quantiles:
        return []
    lines = [
        Text.assemble(
            (f"{name} ", "dim"),
            f"p50 {_ms(one.p50)}  p95 {_ms(one.p95)}" + (f"  p99 {_ms(one.p99)}" if width >= 50 else ""),
        )
        for name, one in quantiles.items()
    ]
    if width < 118:
        return list(lines)
    return [Text("   ").join(lines)]


def _batch(look: LiveView, width: int, room: int) -> list[RenderableType]:
    if not look.running and not look.waiting:
        return [Text("Nothing runs, nothing waits.", style="dim")]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    is_wide = width >= WIDE
    id_room = width if is_wide else width - _NARROW_REST
    table.add_column("REQUEST", no_wrap=True, overflow="ellipsis", min_width=8)
    for name in ("PHASE", "PROMPT", "NEW", "BLOCKS", "AGE") if is_wide else ("NEW", "AGE"):
        table.add_column(name, no_wrap=True, justify="left" if name == "PHASE" else "right")
    for row in look.running[: max(1, room - 1)]:
        new = f"{row.output_tokens}/{row.max_tokens}" if is_wide else str(row.output_tokens)
        more: tuple[str, ...] = (row.phase, str(row.prompt_tokens), new, str(row.num_blocks)) if is_wide else (new,)
        table.add_row(shorten(row.request or OTHERS, id_room), *more, format_seconds(row.age_s))
    for waiting in look.waiting[: max(0, room - 1 - len(look.running))]:
        more = (
            ("preempted" if waiting.is_preempted else "waits", str(waiting.prompt_tokens), "", "") if is_wide else ("",)
        )
        table.add_row(
            Text(shorten(waiting.request or OTHERS, id_room), style="yellow"), *more, format_seconds(waiting.age_s)
        )
    hidden = len(look.running) + look.num_waiting - table.row_count
    return [table, Text(f"and {hidden} more", style="dim")] if hidden > 0 else [table]


def _changes(meter: Meter, width: int, room: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for change in list(meter.changes)[:room]:
        is_in = change.kind == "in"
        words = f"{change.tokens} prompt tokens" if is_in else f"{change.tokens} tokens, {format_seconds(change.age_s)}"
        line = Text.assemble(("+ " if is_in else "- ", "green" if is_in else "blue"), change.request)
        if width >= 44:
            line.append(f"  {words}", style="dim")
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
    return lines


def _one(value: float | None, layout: str) -> str:
    return "-" if value is None else layout.format(value)


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
