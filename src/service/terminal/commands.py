"""The words of the chat: which commands there are, and whether a line is one of them or a message. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from contracts.errors import InvalidValue

ArgumentKind = Literal["none", "model", "text", "setting", "file", "command", "id"]

BLOCK_QUOTES: Final = '"""'
_NAME = re.compile(r"/([a-z?]*)", re.IGNORECASE)


class CommandSpec(NamedTuple):
    """One command as help and completion show it."""

    name: str
    arguments: str
    help: str
    argument_kind: ArgumentKind = "none"


COMMANDS: Final = (
    CommandSpec("help", "", "what can be typed here"),
    CommandSpec("models", "", "the models of the server"),
    CommandSpec("switch", "MODEL", "answer with another model, which is loaded first", "model"),
    CommandSpec("system", "[TEXT]", "show or set the system prompt; `none` removes it", "text"),
    CommandSpec("set", "[NAME VALUE]", "show or change a setting; `preset NAME` takes several", "setting"),
    CommandSpec("save", "[FILE]", "save the conversation, as the page exports it", "file"),
    CommandSpec("load", "[FILE]", "go on with a saved conversation; alone: list them", "file"),
    CommandSpec("export", "FILE", "a copy for others; FILE.md is written as Markdown", "file"),
    CommandSpec("clear", "", "begin a new conversation"),
    CommandSpec("retry", "", "answer the last message again"),
    CommandSpec("why", "[ID]", "where the time of the last answer, or of another request, went", "id"),
    CommandSpec("quit", "", "leave; also /exit and Ctrl-D"),
)
_OTHER_NAMES: Final = {"exit": "quit", "bye": "quit", "?": "help"}
_BARE_WORDS: Final = {"clear": "clear", "quit": "quit", "exit": "quit"}


class KnownWords(NamedTuple):
    """What arguments may be, as the session knows it now; for completion."""

    models: Sequence[str] = ()
    presets: Sequence[str] = ()
    chats: Sequence[str] = ()


class Command(NamedTuple):
    """A command as it was typed."""

    name: str
    argument: str


class Message(NamedTuple):
    """Something to be said to the model."""

    text: str


def parse_line(line: str) -> Command | Message | None:
    """What was typed; None for nothing. Raises InvalidValue for a command that there is not.

    A path such as /usr/bin at the beginning is a message, and so is everything between triple quotes.
    """
    text = line.strip()
    if not text:
        return None
    if text.startswith(BLOCK_QUOTES):
        said = text.removeprefix(BLOCK_QUOTES).removesuffix(BLOCK_QUOTES).strip("\n")
        return Message(said) if said.strip() else None
    if text.lower() in _BARE_WORDS:
        return Command(_BARE_WORDS[text.lower()], "")
    word, _, rest = text.partition(" ")
    if "\n" in word:
        word, _, rest = text.partition("\n")
    found = _NAME.fullmatch(word)
    if found is None:
        return Message(text)
    return Command(find_command(found[1].lower()), rest.strip())


def find_command(name: str) -> str:
    """The command that a word after the slash means. Raises InvalidValue with the nearest."""
    name = _OTHER_NAMES.get(name, name)
    names = [spec.name for spec in COMMANDS]
    if name in names:
        return name
    close = [one for one in names if name and one.startswith(name)] + difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean /{close[0]}?" if close else "/help lists all."
    raise InvalidValue(f"There is no command /{name}. {hint}")


def is_open_block(text: str) -> bool:
    """Whether Enter goes on with the text instead of sending it: its triple quotes are not closed yet."""
    start = text.lstrip()
    return start.startswith(BLOCK_QUOTES) and not start.removeprefix(BLOCK_QUOTES).rstrip().endswith(BLOCK_QUOTES)


def takes_argument(text: str) -> bool:
    """Whether the text is a whole command and nothing more, and an argument may follow."""
    return any(text == f"/{spec.name}" and spec.arguments for spec in COMMANDS)
