"""How an answer appears while it comes: Markdown on a terminal, plain text everywhere else.

On a terminal, blocks that are complete are printed once and stay; only the one that still grows is drawn again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from service.terminal.markdown_blocks import BlockSplitter, markdown_parser
from service.terminal.shown_text import make_harmless

FRAMES_PER_S: Final = 12
MAX_DRAWING_SHARE: Final = 0.2
"""Of the time; a block that takes long to draw is drawn less often."""
CODE_THEME: Final = "ansi_dark"
"""The terminal's own colours, on its own background."""


class AnswerView(Protocol):
    """Shows one answer. A context: leaving it shows what is left, whatever ended the answer."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, piece: str) -> None:
        """Add to the answer."""
        ...


class PlainView:
    """Text as it comes, for pipes and for terminals that cannot move the cursor."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._needs_line_end = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._needs_line_end:
            click.echo()

    def write(self, piece: str) -> None:
        """Print it at once."""
        shown = make_harmless(piece) if self._is_terminal else piece
        self._needs_line_end = not piece.endswith("\n")
        click.echo(shown, nl=False, color=True)  # else click takes out of a text what looks like a colour


class MarkdownView:
    """Owner of the live part of the terminal while one answer comes."""

    def __init__(self, console: Console, waiting_words: Callable[[], str]) -> None:
        """`waiting_words` says what goes on before the first text, and is asked for every frame."""
        self._console = console
        self._splitter = BlockSplitter()
        self._frame = _Frame(waiting_words)
        self._live = Live(self._frame, console=console, transient=True, refresh_per_second=FRAMES_PER_S)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._frame.tail = self._splitter.tail
        self._live.stop()
        if self._splitter.tail.strip():
            self._print(self._splitter.tail)

    def write(self, piece: str) -> None:
        """Add to the answer; what is complete is printed for good."""
        closed = self._splitter.feed(make_harmless(piece))
        self._frame.has_begun = True
        for block in closed:
            self._frame.tail = self._splitter.tail if block is closed[-1] else ""
            self._print(block)
        self._frame.tail = self._splitter.tail

    def _print(self, block: str) -> None:
        if self._frame.is_below_a_block:
            self._console.print()
        self._frame.is_below_a_block = True
        self._console.print(MarkdownBlock(block))


class ChatMarkdown(Markdown):
    """A model's Markdown: headings stand on the left, HTML is shown, and links show where they lead."""

    class LeftHeading(Heading):
        """Centred headings tear a narrow text apart."""

        LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")

    elements = {**Markdown.elements, "heading_open": LeftHeading}  # noqa: RUF012

    def __init__(self, markup: str) -> None:
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        self.markup = markup
        self.parsed = markdown_parser().parse(markup)
        for token in self.parsed:
            for inner in token.children or ():
                if inner.type == "softbreak":  # a model that begins a line means a line
                    inner.type = "hardbreak"


class MarkdownBlock:
    """A block, or a whole text, without the empty rows above and below it."""

    def __init__(self, markup: str) -> None:
        self._markdown = ChatMarkdown(markup)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.rows(console, options):
            yield from line
            yield Segment.line()

    def rows(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        """As they are drawn at this width."""
        rows = [_without_trail(row) for row in console.render_lines(self._markdown, options, pad=False)]
        filled = [index for index, row in enumerate(rows) if any(segment.text.strip() for segment in row)]
        return rows[filled[0] : filled[-1] + 1] if filled else []


def _without_trail(row: list[Segment]) -> list[Segment]:
    """Without the spaces to the edge, which would be rows of their own once the window is made narrower."""
    kept = [*row]
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        last = kept.pop()
        kept.append(Segment(last.text.rstrip(), last.style, last.control))
    return kept


class _Frame:
    """The live part: what the server does, then the block that grows. Read by the thread that draws."""

    def __init__(self, waiting_words: Callable[[], str]) -> None:
        self.tail = ""
        self.has_begun = False
        self.is_below_a_block = False
        self._waiting_words = waiting_words
        self._spinner = Spinner("dots", style="cyan")
        self._drawn: tuple[str, int] | None = None
        self._lines: list[list[Segment]] = []
        self._next_drawing_s = 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.has_begun:
            self._spinner.text = Text(self._waiting_words(), style="dim")
            yield self._spinner
            return
        if not self.tail.strip():
            return
        room = max(1, console.height - 2)
        lines = self._draw(console, options)
        if self.is_below_a_block and len(lines) < room:
            yield Segment.line()
        for line in lines[-room:]:
            yield from line
            yield Segment.line()

    def _draw(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        """The rows of the tail; those of an older frame where drawing costs too much."""
        wanted = self.tail, options.max_width
        began_s = time.monotonic()
        if wanted != self._drawn and began_s >= self._next_drawing_s:
            self._lines = MarkdownBlock(wanted[0]).rows(console, options)
            self._drawn = wanted
            now_s = time.monotonic()
            self._next_drawing_s = now_s + (now_s - began_s) / MAX_DRAWING_SHARE
        return self._lines


def open_view(console: Console, waiting_words: Callable[[], str]) -> AnswerView:
    """The view that the console can show."""
    if console.is_terminal and not console.is_dumb_terminal:
        return MarkdownView(console, waiting_words)
    return PlainView(is_terminal=console.is_terminal)
