"""Draws a comparison: columns where the terminal is wide enough for them, else one answer below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from service.terminal.answer_view import MarkdownBlock
from service.terminal.comparison import Column, VariantResult
from service.terminal.figures import SEPARATOR, show_ms, show_rate
from service.terminal.shown_text import make_harmless

MIN_COLUMN_WIDTH: Final = 24
GAP: Final = 2


def is_wide(console: Console, num_columns: int) -> bool:
    """Whether all columns fit beside each other."""
    return console.is_terminal and console.width >= num_columns * (MIN_COLUMN_WIDTH + GAP)


def figures_of(result: VariantResult) -> str:
    """The line below an answer."""
    parts = [f"{result.tokens:,} token{'' if result.tokens == 1 else 's'}"]
    if result.tokens_per_s is not None:
        parts.append(f"{show_rate(result.tokens_per_s)} tok/s")
    if result.ttft_ms is not None:
        parts.append(f"first token {show_ms(result.ttft_ms)}")
    parts.append("failed" if result.error is not None else result.finish_reason or "...")
    return SEPARATOR.join(parts)


def draw_columns(results: Sequence[VariantResult]) -> Table:
    """Beside each other."""
    table = _table(results)
    table.add_row(*(MarkdownBlock(make_harmless(result.text)) for result in results))
    table.add_row(*(Text(make_harmless(result.error or ""), style="red") for result in results))
    table.add_row(*(Text(figures_of(result), style="dim") for result in results))
    return table


def print_stacked(console: Console, results: Sequence[VariantResult]) -> None:
    """One below the other; plain text for a pipe."""
    for number, result in enumerate(results):
        if number:
            console.print()
        console.print(Text(result.name, style="bold cyan"), soft_wrap=True)
        if console.is_terminal:
            console.print(MarkdownBlock(make_harmless(result.text)))
        else:
            console.print(Text(result.text), soft_wrap=True)
        if result.error is not None:
            console.print(Text(f"Error: {make_harmless(result.error)}", style="red"), soft_wrap=True)
        console.print(Text(figures_of(result), style="dim"), soft_wrap=True)


class LiveColumns:
    """All answers while they come: the last rows of each, as plain text."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not is_wide(console, len(self._columns)):
            for column in self._columns:
                state = "..." if not column.is_over else "done"
                line = f"{column.variant.name}: {column.answer.num_pieces} tokens {state}"
                yield Text(line, overflow="ellipsis", no_wrap=True)
            return
        results = [column.result for column in self._columns]
        table = _table(results)
        room = max(1, console.height - 6)
        table.add_row(*(_Tail(result.text, room) for result in results))
        table.add_row(*(Text(figures_of(result), style="dim") for result in results))
        yield table


class _Tail:
    """The last rows of a text."""

    def __init__(self, text: str, num_rows: int) -> None:
        self._text = Text(make_harmless(text))
        self._num_rows = num_rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._text, options, pad=False)[-self._num_rows :]:
            yield from line
            yield Segment.line()


def _table(results: Sequence[VariantResult]) -> Table:
    table = Table(box=None, expand=True, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold cyan")
    for result in results:
        table.add_column(Text(result.name, overflow="fold"), ratio=1, overflow="fold")
    return table
