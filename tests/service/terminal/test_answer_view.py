"""What an answer looks like while it comes: on a terminal, on one that can do little, and in a pipe."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from service.terminal.answer_view import MarkdownBlock, MarkdownView, PlainView, open_view
from service.terminal.shown_text import make_harmless

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def console(width: int = 40, **options: object) -> Console:
    return Console(file=StringIO(), width=width, height=10, highlight=False, **options)  # type: ignore[arg-type]


def drawn(markup: str, width: int = 40) -> str:
    made = console(width)
    made.print(MarkdownBlock(markup))
    assert isinstance(made.file, StringIO)
    return made.file.getvalue().removesuffix("\n")


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("# Title\n\n", "Title"),
        ("one\ntwo", "one\ntwo"),
        ("<b>bold</b> & <script>", "<b>bold</b> & <script>"),
        ("[text](http://a/b)", "text (http://a/b)"),
        ("```\ncode\n```", " code"),
        ("- a\n- b", " • a\n • b"),
        ("", ""),
    ],
)
def test_markdown_is_drawn_without_rows_around_it(markup: str, shown: str) -> None:
    assert drawn(markup) == shown


@pytest.mark.parametrize("width", [1, 8, 20])
def test_narrow_windows_are_kept_to(width: int) -> None:
    text = drawn(
        "# A heading\n\nwords and more words\n\n```\ncode that is long\n```\n\n| a | b |\n|-|-|\n| 1 | 2 |", width
    )
    assert max(map(len, text.splitlines())) <= width


def test_closed_blocks_are_printed_once_and_the_rest_at_the_end() -> None:
    made = console(force_terminal=True)
    with MarkdownView(made, lambda: "") as view:
        for piece in ("# One\n\n", "two ", "three\n\n", "fo", "ur"):
            view.write(piece)
    assert isinstance(made.file, StringIO)
    output = ESCAPES.sub("", made.file.getvalue())
    assert output.count("One") == 1
    assert [line.strip() for line in output.splitlines()][-3:] == ["two three", "", "four"]


@pytest.mark.parametrize(
    ("environ", "is_terminal", "kind"),
    [
        ({"TERM": "xterm"}, True, MarkdownView),
        ({"TERM": "dumb"}, True, PlainView),
        ({"TERM": "xterm"}, False, PlainView),
    ],
)
def test_view_fits_the_terminal(environ: dict[str, str], is_terminal: bool, kind: type) -> None:
    made = console(force_terminal=is_terminal, _environ=environ)
    assert isinstance(open_view(made, lambda: ""), kind)


def test_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainView(is_terminal=False) as view:
        view.write("# a\x1b[31m")
    assert capsys.readouterr().out == "# a\x1b[31m\n"


def test_terminal_is_not_commanded_by_a_model() -> None:
    hostile = "a\x1b]0;title\x07\x9b31m\x08\rb\tc\nd\u202ee"
    assert make_harmless(hostile) == "a]0;title31mb\tc\nde"
