"""`quire chat`: talk to a running server, in a session or with a single question that may come through a pipe."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import click
import msgspec
from rich.console import Console

from contracts.errors import InvalidValue, QuireError, SettingsError
from contracts.presets import PresetList
from service.cli_options import verbose_option
from service.terminal.answer_stream import Answer
from service.terminal.api_client import ApiClient
from service.terminal.commands import Command, parse_line
from service.terminal.figures import figures_line
from service.terminal.model_switch import choose_model, list_models
from service.terminal.sampling_settings import PRESET, VALUE_NAMES, change
from service.terminal.saved_chats import history_path, prepare_history
from service.terminal.server_options import server_options
from service.terminal.session import ChatSession, show_answer
from service.terminal.session_commands import run_command, tell_loaded

INTERRUPTED = 130


class OutputFailed(QuireError):
    """Standard output takes no more, because the disk is full or for another reason."""


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them; what is None is left to the server."""

    base_url: str
    api_key: str | None
    prompt: str | None
    model: str | None
    system: str | None
    system_file: Path | None
    conversation: str | None
    preset: str | None
    temperature: str | None
    top_k: str | None
    top_p: str | None
    min_p: str | None
    max_tokens: str | None
    seed: str | None
    history: bool
    stats: bool | None


@click.command("chat")
@click.argument("words", metavar="[PROMPT]...", nargs=-1)
@click.option("-p", "--prompt", metavar="TEXT", help="The question, as an option.")
@server_options
@click.option("--model", metavar="MODEL", help="Model that answers; default: the server's.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option(
    "--system-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File that holds it instead."
)
@click.option("--conversation", metavar="ID", help="Go on with a conversation that the server keeps.")
@click.option("--preset", metavar="NAME", help="Named settings of the server, such as creative.")
@click.option("-t", "--temperature", metavar="NUMBER", help="0 is greedy.")
@click.option("-k", "--top-k", metavar="NUMBER", help="Choose among the k most probable tokens.")
@click.option("--top-p", metavar="NUMBER", help="Choose among the fewest tokens of this probability.")
@click.option("--min-p", metavar="NUMBER", help="Leave out what is this much less probable than the best.")
@click.option("--max-tokens", metavar="NUMBER", help="Most tokens of an answer.")
@click.option("--seed", metavar="NUMBER", help="The same seed gives the same text.")
@click.option("--history/--no-history", default=True, help="Remember what is typed for the next session.")
@click.option("--stats/--no-stats", default=None, help="Figures below an answer; default: in a session only.")
@verbose_option
def chat_command(words: tuple[str, ...], **flags: object) -> None:
    """Talk to the model of a running server.

    Without PROMPT a session opens; /help lists its commands. With PROMPT, or with a text on standard input, the answer
    is printed and the command ends:

    \b
      quire chat "What is a quire?"
      quire chat "Summarise this:" < report.txt
      git diff | quire chat -p "Write a commit message." --temperature 0

    `-` is the text on standard input. Into a pipe goes plain text.
    """
    options = msgspec.convert(flags, ChatOptions)
    prompt = read_prompt(words, options.prompt)
    if prompt is None and not sys.stdout.isatty():
        raise SettingsError("Standard output is no terminal: give a PROMPT, or run `quire chat` in a terminal.")
    with ApiClient(options.base_url, options.api_key) as client:
        console = Console(highlight=False, soft_wrap=False)
        session = open_session(client, console, options)
        if prompt is None:
            run_session(session, is_history_kept=options.history)
        else:
            answer_once(session, prompt, is_counted=bool(options.stats))


def read_prompt(words: tuple[str, ...], option: str | None) -> str | None:
    """The question of the command line with the text of standard input; None where there is neither."""
    if words and option is not None:
        raise SettingsError("Give the question as PROMPT or with --prompt, not both.")
    asked = " ".join(words) if words else option
    is_piped = not sys.stdin.isatty()
    if asked == "-" or (asked is None and is_piped):
        asked = _read_input()
    elif asked is not None and is_piped and (text := _read_input()):
        asked = f"{asked}\n\n{text}"
    if asked is not None and not asked.strip():
        raise SettingsError("The question is empty: give a PROMPT, or a text on standard input.")
    return asked


def _read_input() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "replace").strip("\n")


def open_session(client: ApiClient, console: Console, options: ChatOptions) -> ChatSession:
    """A session with the wanted model and settings. Raises QuireError where the server has none of that name."""
    models = list_models(client)
    session = ChatSession(client, console, choose_model(models, options.model))
    session.models = models
    with suppress(QuireError):  # a server without them has no presets
        session.presets = client.get_json("/v1/presets", PresetList).data
    if options.conversation is not None:
        session.open_kept(options.conversation)
        if options.model is not None:
            session.model = choose_model(models, options.model)
    for name in (PRESET, *VALUE_NAMES):
        text = getattr(options, name)
        if text is not None:
            session.settings = change(session.settings, name, text, session.presets)
    system = read_system(options)
    if system is not None:
        session.set_system(system)
    session.has_figures = options.stats is not False
    return session


def read_system(options: ChatOptions) -> str | None:
    """The system prompt. Raises SettingsError."""
    if options.system is not None and options.system_file is not None:
        raise SettingsError("Give --system or --system-file, not both.")
    if options.system_file is None:
        return options.system
    try:
        return options.system_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--system-file {options.system_file} cannot be read: {error}.") from None


def answer_once(session: ChatSession, prompt: str, *, is_counted: bool) -> None:
    """Print the answer to one question. Raises QuireError; Ctrl-C leaves with what came so far."""
    answer = Answer()
    session.dialogue.ask(prompt)
    try:
        show_answer(session.client, session.console, session.question(), answer)
        session.console.file.flush()
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read has left; click ends without a word
            raise
        _give_up_output()
        raise OutputFailed(f"The answer cannot be written: {error.strerror or error}.") from None
    if is_counted:
        click.echo(figures_line(answer, session.explain(answer)), err=True)


def _give_up_output() -> None:
    """What is still in its buffer goes nowhere: the interpreter would fail to write it once more at its end."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def run_session(session: ChatSession, *, is_history_kept: bool) -> None:
    """Read and obey until the user leaves."""
    from service.terminal.line_editor import open_reader

    session.note(f"{session.model.id} at {session.client.url}. /help lists the commands.")
    if session.kept_id is not None:
        tell_loaded(session)
    reader = open_reader(lambda: session.words, _open_history(session) if is_history_kept else None)
    was_interrupted = False
    while True:
        try:
            line = reader.read()
        except EOFError:
            return
        except KeyboardInterrupt:
            if was_interrupted:
                return
            was_interrupted = True
            session.note("Ctrl-C again, or Ctrl-D, leaves.")
            continue
        was_interrupted = False
        if obey(session, line):
            return


def _open_history(session: ChatSession) -> Path | None:
    """The file of what was typed; None, and a note, where it cannot be written."""
    path = history_path()
    try:
        prepare_history(path)
    except OSError as error:
        session.note(f"What is typed is not remembered: {path} cannot be written ({error.strerror or error}).")
        return None
    return path


def obey(session: ChatSession, line: str) -> bool:
    """Say or do what was typed; True where it ends the session."""
    try:
        typed = parse_line(line)
        if isinstance(typed, Command):
            if typed.name == "quit":
                return True
            run_command(session, typed)
        elif typed is not None:
            session.say(typed.text)
    except InvalidValue as error:
        session.note(error.message, "yellow")
    except QuireError as error:
        session.show_error(error)
    except KeyboardInterrupt:
        session.note("Stopped.")
    session.console.print()
    return False
