"""What each command of the chat does to its session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from rich.table import Table
from rich.text import Text

from contracts.errors import InvalidValue
from service.terminal.answer_stream import find_request
from service.terminal.commands import COMMANDS, Command
from service.terminal.dialogue import decode_dialogue, encode_dialogue, to_markdown
from service.terminal.model_switch import choose_model, list_models, load_model, models_table
from service.terminal.sampling_settings import DEFAULT_WORDS, SETTING_NAMES, SamplingSettings, change, find_name
from service.terminal.saved_chats import (
    chats_directory,
    path_to_load,
    path_to_save,
    read_saved,
    saved_names,
    write_private,
)
from service.terminal.session import ChatSession
from service.terminal.shown_text import make_harmless
from service.timeline import draw_phases

KEYS: Final = (
    ("Alt-Enter", "a line more; or paste, or write between triple quotes"),
    ("Tab", "complete commands, models, settings, presets, files"),
    ("Ctrl-C", "stop the answer; at the prompt twice: leave"),
    ("Ctrl-D", "leave"),
)
MAX_NAMES_SHOWN: Final = 20
MAX_SHOWN_LEN: Final = 400


def run_command(session: ChatSession, command: Command) -> None:
    """Do it; raises QuireError with what is to be said. `quit` is for the caller."""
    _ACTIONS[command.name](session, command.argument)


def _help(session: ChatSession, _: str) -> None:
    table = Table.grid(padding=(0, 2))
    for spec in COMMANDS:
        table.add_row(Text(f"/{spec.name} {spec.arguments}".strip(), style="cyan"), Text(spec.help))
    for key, meaning in KEYS:
        table.add_row(Text(key, style="cyan"), Text(meaning))
    session.console.print(table)


def _models(session: ChatSession, _: str) -> None:
    session.models = list_models(session.client)
    session.console.print(models_table(session.models, session.model.id, session.console.width))


def _switch(session: ChatSession, argument: str) -> None:
    if not argument:
        raise InvalidValue("Name a model: /switch MODEL. /models lists them.")
    session.models = list_models(session.client)
    wanted = choose_model(session.models, argument)
    try:
        session.model = load_model(session.client, wanted, session.console)
    except KeyboardInterrupt:
        session.note(f"Not switched; {session.model.id} goes on.")
        return
    session.note(f"{session.model.id} answers from now on.")
    if session.model.kind == "base":
        session.note("It is a base model: it continues what you type, and sees nothing that was said before.")


def _system(session: ChatSession, argument: str) -> None:
    if argument:
        session.set_system(None if argument.lower() in DEFAULT_WORDS else argument)
    text = session.dialogue.system
    session.note("No system prompt." if text is None else f"System prompt: {make_harmless(text)}")


def _set(session: ChatSession, argument: str) -> None:
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    if name and not value.strip():
        raise InvalidValue(f"Give {find_name(name)} a value, or `default`: /set {find_name(name)} VALUE.")
    if name:
        session.settings = change(session.settings, name, value.strip(), session.presets)
        session.note(f"Set: {session.settings}.")
        return
    _show_settings(session, session.settings)


def _show_settings(session: ChatSession, settings: SamplingSettings) -> None:
    """Every setting with what applies; a preset's values are marked as such."""
    preset = next((preset for preset in session.presets if preset.id == settings.preset), None)
    defaults = session.model.sampling_defaults
    table = Table.grid(padding=(0, 2))
    for name in SETTING_NAMES:
        value = settings.request_fields.get(name)
        source = ""
        for candidate, told in ((preset, f"preset {settings.preset}"), (defaults, "the model's")):
            if value is None and getattr(candidate, name, None) is not None:
                value, source = getattr(candidate, name), told
        table.add_row(Text(name, style="cyan"), "-" if value is None else str(value), Text(source, style="dim"))
    session.console.print(table)
    if session.presets:
        session.note(f"Presets: {', '.join(preset.id for preset in session.presets)}.")


def _save(session: ChatSession, argument: str) -> None:
    with _told_in_words(argument):
        path = path_to_save(argument, session.file_path, session.dialogue.title, chats_directory())
        write_private(path, encode_dialogue(session.to_file()))
    session.file_path = path
    session.note(f"Saved: {path}")


def _export(session: ChatSession, argument: str) -> None:
    if not argument:
        raise InvalidValue("Name a file: /export FILE, or FILE.md for Markdown.")
    file = session.to_file()
    with _told_in_words(argument):
        path = path_to_save(argument, None, None, chats_directory())
        is_markdown = path.suffix.lower() in {".md", ".markdown"}
        write_private(path, to_markdown(file).encode() if is_markdown else encode_dialogue(file))
    session.note(f"Written: {path}")


@contextmanager
def _told_in_words(argument: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = argument or str(chats_directory())
        raise InvalidValue(f"{place} cannot be written: {error.strerror or error}.") from None


def _load(session: ChatSession, argument: str) -> None:
    directory = chats_directory()
    if not argument:
        names = saved_names(directory)
        session.note("Saved:" if names else f"Nothing is saved in {directory}.")
        for name in names[:MAX_NAMES_SHOWN]:
            session.console.print(Text(f"  {make_harmless(name)}"))
        return
    path = path_to_load(argument, directory)
    session.load(decode_dialogue(read_saved(path), path.name), path)
    tell_loaded(session)


def tell_loaded(session: ChatSession) -> None:
    """Where the conversation stands: its title, and the end of what was said last."""
    dialogue = session.dialogue
    num = len(dialogue.messages)
    session.note(f"{make_harmless(dialogue.title or 'Loaded')}: {num} message{'' if num == 1 else 's'}.")
    last = dialogue.last_reply or dialogue.open_question
    if last is not None:
        shown = make_harmless(last)
        session.note(f"… {shown[-MAX_SHOWN_LEN:]}" if len(shown) > MAX_SHOWN_LEN else shown)


def _clear(session: ChatSession, _: str) -> None:
    was_kept = session.kept_id is not None
    session.dialogue.clear()
    session.file_path = session.kept_id = None
    session.note("A new conversation" + (", in this terminal alone." if was_kept else "."))


def _retry(session: ChatSession, _: str) -> None:
    if not session.reopen():
        raise InvalidValue("Nothing was asked yet.")
    session.answer()


def _why(session: ChatSession, argument: str) -> None:
    any_id = argument or session.last_request_id
    if any_id is None:
        raise InvalidValue("Nothing was asked yet. /why ID tells of another request.")
    told = find_request(session.client, any_id)
    console = session.console
    for sentence in told.sentences:
        console.print(Text(make_harmless(sentence)))
    console.print()
    for line in draw_phases(told, console.width):
        console.print(Text(line), no_wrap=True, overflow="ellipsis", crop=True)
    if told.trace_url or told.trace_id:
        session.note(f"trace {told.trace_url or told.trace_id}")


_ACTIONS: Final[Mapping[str, Callable[[ChatSession, str], None]]] = MappingProxyType(
    {
        "help": _help,
        "models": _models,
        "switch": _switch,
        "system": _system,
        "set": _set,
        "save": _save,
        "load": _load,
        "export": _export,
        "clear": _clear,
        "retry": _retry,
        "why": _why,
    }
)
