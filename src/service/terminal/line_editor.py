"""Where the user types: history, completion, several lines, and what Ctrl-C means at the prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from service.terminal.commands import COMMANDS, KnownWords, is_open_block, takes_argument
from service.terminal.sampling_settings import DEFAULT_WORDS, PRESET, SETTING_NAMES

MENU_HEIGHT = 6
_STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "placeholder": "ansibrightblack",
        "completion-menu": "noinherit",
        "completion-menu.completion": "noinherit",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit ansibrightblack",
        "completion-menu.meta.completion.current": "noinherit reverse",
        "scrollbar.background": "noinherit",
        "scrollbar.button": "noinherit",
    }
)


class CommandCompleter(Completer):
    """Completes commands and their arguments; messages are left alone."""

    def __init__(self, words: Callable[[], KnownWords]) -> None:
        self._words = words
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """For what stands before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        command, space, rest = text.partition(" ")
        if not space:
            for spec in COMMANDS:
                if f"/{spec.name}".startswith(command):
                    shown = f"/{spec.name} {spec.arguments}".strip()
                    yield Completion(f"/{spec.name}", -len(command), display=shown, display_meta=spec.help)
            return
        kind = next((spec.argument_kind for spec in COMMANDS if f"/{spec.name}" == command), "none")
        if kind == "file":
            yield from self._files.get_completions(Document(rest), complete_event)
        choices = self._choices(kind, command, rest)
        last = rest.rpartition(" ")[2]
        yield from (Completion(choice, -len(last)) for choice in choices if choice.startswith(last))

    def _choices(self, kind: str, command: str, rest: str) -> Sequence[str]:
        words = self._words()
        if kind == "model":
            return words.models
        if kind == "file":
            return words.chats if command == "/load" else ()
        if kind != "setting":
            return ()
        name, space, _ = rest.partition(" ")
        if not space:
            return SETTING_NAMES
        return [*(words.presets if name == PRESET else ()), min(DEFAULT_WORDS)]


class LineEditor:
    """Owner of the prompt. Reads one message or command at a time."""

    def __init__(self, words: Callable[[], KnownWords], history_path: Path | None) -> None:
        """`history_path` must be writable; None keeps what is typed in memory."""
        history: History = InMemoryHistory() if history_path is None else FileHistory(str(history_path))
        completer = CommandCompleter(words)
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=completer,
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            auto_suggest=None if os.environ.get("NO_COLOR") else AutoSuggestFromHistory(),
            key_bindings=_key_bindings(completer),
            multiline=True,
            prompt_continuation=lambda width, *_: "." * (width - 1) + " ",
            reserve_space_for_menu=MENU_HEIGHT,
            style=_STYLE,
        )

    def read(self) -> str:
        """What was typed; raises EOFError for Ctrl-D and KeyboardInterrupt for Ctrl-C on an empty line."""
        return self._session.prompt(FormattedText([("class:prompt", "> ")]))


class PlainReader:
    """The prompt of a terminal that cannot move its cursor."""

    def read(self) -> str:
        """As LineEditor's; a message in triple quotes may have several lines."""
        text = input("> ")
        while is_open_block(text):
            text += "\n" + input(". ")
        return text


def open_reader(words: Callable[[], KnownWords], history_path: Path | None) -> LineEditor | PlainReader:
    """What this terminal can do."""
    is_dumb = os.environ.get("TERM", "dumb").lower() in {"dumb", "unknown"}
    return PlainReader() if is_dumb else LineEditor(words, history_path)


def _key_bindings(completer: Completer) -> KeyBindings:
    """Enter sends, Alt-Enter begins a line, Ctrl-C drops what is typed."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        elif is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("tab")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and len(buffer.complete_state.completions) > 1:
            buffer.complete_next()
            return
        found = list(completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
        if len(found) == 1:
            buffer.apply_completion(found[0])
            buffer.insert_text(" " if takes_argument(buffer.text) else "", fire_event=False)
        elif found:
            buffer.start_completion(insert_common_part=True)

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings
