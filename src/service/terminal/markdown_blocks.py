"""Cuts a growing Markdown text into blocks that will not change any more and a tail that may. Draws nothing.

A block is final once another one stands behind it; so each is parsed and drawn to its end once, and only the tail again
and again.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@cache
def markdown_parser() -> MarkdownIt:
    """CommonMark with tables; HTML is text."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


@cache
def _block_parser() -> MarkdownIt:
    """Without what is inside of lines: that is most of the work."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("inline")


class BlockSplitter:
    """Owner of one growing text."""

    def __init__(self) -> None:
        self.tail = ""
        """The text behind the closed blocks."""

    def feed(self, piece: str) -> list[str]:
        """Add to the text and return the blocks that are closed by it."""
        self.tail += piece
        if "\n" not in piece:
            return []
        *lines, rest = self.tail.split("\n")
        tokens = _block_parser().parse("\n".join(lines))
        starts = sorted({token.map[0] for token in tokens if token.map is not None and token.level == 0})
        if len(starts) < 2:
            return []
        ends = starts[1:]
        self.tail = "\n".join([*lines[ends[-1] :], rest])
        return ["\n".join([*lines[begin:end], ""]) for begin, end in zip([0, *ends], ends, strict=False)]
