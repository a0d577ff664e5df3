"""What was typed is a command, a message or nothing; a slip of the finger is told, not sent to the model."""

from __future__ import annotations

import pytest

from contracts.errors import InvalidValue
from service.terminal.commands import COMMANDS, Command, Message, is_open_block, parse_line, takes_argument


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("/help", Command("help", "")),
        ("/?", Command("help", "")),
        ("  /SWITCH gpt2 ", Command("switch", "gpt2")),
        ("/set preset creative", Command("set", "preset creative")),
        ("/system You are\nbrief.", Command("system", "You are\nbrief.")),
        ("/system\nYou", Command("system", "You")),
        ("/exit", Command("quit", "")),
        ("quit", Command("quit", "")),
        ("Exit", Command("quit", "")),
        ("clear", Command("clear", "")),
        ("clear the table", Message("clear the table")),
        ("/usr/bin has what?", Message("/usr/bin has what?")),
        ('"""\na\n\nb\n"""', Message("a\n\nb")),
        ('"""/help"""', Message("/help")),
        ('"""\n"""', None),
        ("   \n ", None),
    ],
)
def test_line_is_read(line: str, typed: object) -> None:
    assert parse_line(line) == typed


@pytest.mark.parametrize(("line", "hint"), [("/systm", "/system"), ("/sw x", "/switch"), ("/zzz", "/help lists all")])
def test_unknown_command_is_refused_with_the_nearest(line: str, hint: str) -> None:
    with pytest.raises(InvalidValue, match=hint):
        parse_line(line)


@pytest.mark.parametrize(
    ("text", "is_open"), [('"""', True), ('"""a\nb', True), ('"""a\nb"""', False), ("a", False), ('a """', False)]
)
def test_triple_quotes_keep_a_message_open(text: str, is_open: bool) -> None:
    assert is_open_block(text) == is_open


def test_every_command_can_be_typed() -> None:
    assert [parse_line(f"/{spec.name}") for spec in COMMANDS] == [Command(spec.name, "") for spec in COMMANDS]


@pytest.mark.parametrize(("text", "takes"), [("/switch", True), ("/clear", False), ("/sw", False), ("switch", False)])
def test_completion_knows_what_takes_an_argument(text: str, takes: bool) -> None:
    assert takes_argument(text) == takes
