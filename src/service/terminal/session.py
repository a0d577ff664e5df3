"""One chat: what was said, how it is to be answered, and the way of a message to the server and back to the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from contracts.conversations import Conversation, ConversationDetail, ConversationFile
from contracts.errors import QuireError
from contracts.explanation import Explanation
from contracts.openai.models import ModelCard
from contracts.presets import Preset
from service.terminal.answer_stream import Answer, Question, QueueWatch, find_request, read_answer
from service.terminal.answer_view import AnswerView, open_view
from service.terminal.api_client import ApiClient, RequestRefused
from service.terminal.commands import KnownWords
from service.terminal.dialogue import CANCELLED, Dialogue
from service.terminal.figures import figures_line
from service.terminal.sampling_settings import SamplingSettings, from_generation, to_generation
from service.terminal.saved_chats import chats_directory, saved_names

TOO_LONG: Final = "context_length_exceeded"
WORDS_AFTER_S: Final = 1.0
_LOCAL_FLAGS: Final = 3
"""Their place among the attributes of a terminal."""


class ChatSession:
    """Owner of one chat from its first message to the end. Errors of single messages are shown, and it goes on."""

    def __init__(self, client: ApiClient, console: Console, model: ModelCard) -> None:
        self.client = client
        self.console = console
        self.model = model
        self.models: list[ModelCard] = [model]
        self.presets: list[Preset] = []
        self.settings = SamplingSettings()
        self.dialogue = Dialogue()
        self.file_path: Path | None = None
        """Where this conversation was saved to or loaded from."""
        self.kept_id: str | None = None
        """Of the conversation at the server that this one goes on with."""
        self.last_request_id: str | None = None
        self.has_figures = True

    @property
    def words(self) -> KnownWords:
        """For completion."""
        return KnownWords(
            models=[card.id for card in self.models],
            presets=[preset.id for preset in self.presets],
            chats=saved_names(chats_directory()),
        )

    def note(self, text: str, style: str = "dim") -> None:
        """Say something that is no answer."""
        self.console.print(Text(text, style=style))

    def show_error(self, error: QuireError) -> None:
        """One paragraph; the chat goes on."""
        self.note(f"Error: {error.message}", "red")

    # ---- messages

    def say(self, text: str) -> None:
        """Send a message and show its answer."""
        self.dialogue.ask(text)
        self.answer()

    def answer(self) -> None:
        """Show an answer to the open question; whatever comes of it, the session goes on."""
        answer = Answer()
        self.last_request_id = answer.request_id
        self.console.print()
        try:
            self._read_fitting(answer)
        except KeyboardInterrupt:
            answer.finish_reason = CANCELLED
            self._keep(answer, CANCELLED)
        except QuireError as error:
            self._keep(answer, "error", error.code)
            self.show_error(error)
            self.note("/retry asks again." if not answer.text else "What came is kept; /retry asks again.")
            return
        else:
            self._keep(answer, answer.finish_reason or "stop")
        if not answer.text:
            self.note("(no text)")
        if self.has_figures:
            self.console.print()
            self.note(figures_line(answer, self.explain(answer)))

    def _keep(self, answer: Answer, finish_reason: str, code: str | None = None) -> None:
        if answer.text:
            self.dialogue.answer(answer.text, answer.model or self.model.id, finish_reason)
        elif finish_reason == "stop":
            self.dialogue.answer("", answer.model or self.model.id, finish_reason)
        else:
            self.dialogue.fail(code or finish_reason)

    def _read_fitting(self, answer: Answer) -> None:
        """Read the answer; a prompt that is too long loses its oldest turns until it fits."""
        num_left_out = self.dialogue.num_left_out
        while True:
            try:
                show_answer(self.client, self.console, self.question(), answer)
            except RequestRefused as error:
                is_too_long = error.code == TOO_LONG and self.kept_id is None and not answer.text
                if not (is_too_long and self.dialogue.leave_out_oldest()):
                    self.dialogue.num_left_out = num_left_out
                    raise
            else:
                break
        if self.dialogue.num_left_out > num_left_out:
            self.note("The oldest turns no longer fit the model's window; it does not see them.")

    def question(self) -> Question:
        """The request that asks what was said last."""
        messages = self.dialogue.prompt()
        return Question(
            model=self.model.id,
            messages=messages if self.kept_id is None else messages[-1:],
            options=self.settings.request_fields,
            is_base=self.model.kind == "base",
            conversation=self.kept_id,
        )

    def explain(self, answer: Answer) -> Explanation | None:
        """What the server remembers of it; None where it cannot be asked: the answer is there anyway."""
        try:
            return find_request(self.client, answer.request_id)
        except QuireError:
            return None

    # ---- conversations

    def to_file(self) -> ConversationFile:
        """The conversation as it is saved."""
        return self.dialogue.to_file(self.model.id, to_generation(self.settings, self.presets))

    def load(self, file: ConversationFile, path: Path | None = None) -> None:
        """Go on with a saved conversation: its messages, system prompt, settings, and model where the server has it."""
        self.dialogue.load(file)
        self.settings = from_generation(file.generation, self.presets)
        self.file_path = path
        self.kept_id = None
        for card in self.models:
            if card.id == file.model:
                self.model = card
                return
        if file.model is not None:
            self.note(f"The server has no model {file.model}; {self.model.id} goes on.")

    def open_kept(self, conversation_id: str) -> None:
        """Go on with a conversation that the server keeps. Raises as the client does."""
        self.load(self.client.get_json(f"{_kept_path(conversation_id)}/export", ConversationFile))
        self.kept_id = conversation_id

    def reopen(self) -> bool:
        """Take back the last answer, at the server too; False where nothing was asked."""
        if self.kept_id is not None:
            path = _kept_path(self.kept_id)
            messages = self.client.get_json(path, ConversationDetail).messages
            if messages and messages[-1].role == "assistant":
                self.client.delete(f"{path}/messages/{quote(messages[-1].id, safe='')}", ConversationDetail)
        return self.dialogue.reopen() is not None

    def set_system(self, text: str | None) -> None:
        """Change the system prompt from the next message on, at the server too."""
        if self.kept_id is not None:
            self.client.patch_json(_kept_path(self.kept_id), {"system_prompt": text}, Conversation)
        self.dialogue.system = text


def show_answer(client: ApiClient, console: Console, question: Question, answer: Answer) -> None:
    """Read an answer to its end and show it as it comes. Raises as the client does, and KeyboardInterrupt."""
    with QueueWatch(client, answer.request_id) as watch, _without_echo():
        view: AnswerView = open_view(console, lambda: _waiting_words(answer, watch))
        with view, closing(read_answer(client, question, answer)) as pieces:
            for piece in pieces:
                watch.stop()
                view.write(piece)


def _waiting_words(answer: Answer, watch: QueueWatch) -> str:
    waited_s = time.monotonic() - answer.started_s
    if watch.num_ahead:
        return f"{watch.num_ahead} ahead in the queue, {waited_s:.1f} s"
    return "" if waited_s < WORDS_AFTER_S else f"{waited_s:.1f} s"


def _kept_path(conversation_id: str) -> str:
    return f"/v1/conversations/{quote(conversation_id, safe='')}"


@contextmanager
def _without_echo() -> Iterator[None]:
    """Keep what is typed while an answer comes out of it; it stands at the next prompt."""
    before = _terminal_attributes()
    if before is None:
        yield
        return
    import termios

    quiet = [*before]
    quiet[_LOCAL_FLAGS] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _terminal_attributes() -> list[Any] | None:
    """Of standard input; None where it is no terminal, or where terminals are of another kind."""
    try:
        import termios
    except ImportError:
        return None
    try:
        return termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError):
        return None
