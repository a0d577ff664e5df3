"""The conversation as the terminal has it: what was said, what of it a request carries, and its saved form.

Knows neither HTTP nor terminals. The saved form is the one of the API's export and import, and so of the page.
"""

from __future__ import annotations

from typing import Final

import msgspec

from contracts.conversations import ConversationFile, FileMessage, GenerationDefaults
from contracts.errors import InvalidValue, clip
from service.clocks import unix_ms
from service.conversations.exchange import count_by_role, encode_file, iso_time, read_file
from service.conversations.texts import default_title

CANCELLED: Final = "cancelled"
"""The finish reason of an answer that was stopped, as the server keeps it."""


class Dialogue:
    """Owner of the messages of one conversation. Owner of it: the chat session."""

    def __init__(self) -> None:
        self.system: str | None = None
        self.messages: list[FileMessage] = []
        self._origin = ConversationFile(messages=[])
        """The file that it was loaded from: its names and dates stay."""
        self.num_left_out = 0
        """Turns at the beginning that no longer fit the model's window."""

    @property
    def title(self) -> str | None:
        """Its own, else the beginning of the first message."""
        first = next((message.content for message in self.messages if message.role == "user"), "")
        return self._origin.title or default_title(first)

    @property
    def last_reply(self) -> str | None:
        """The text of the newest answer."""
        last = self.messages[-1] if self.messages else None
        return last.content if last is not None and last.role == "assistant" else None

    @property
    def open_question(self) -> str | None:
        """The newest message, where it has no answer."""
        last = self.messages[-1] if self.messages else None
        return last.content if last is not None and last.role == "user" else None

    def ask(self, text: str) -> None:
        """Add a message of the user."""
        self.messages.append(FileMessage(role="user", content=text, timestamp=_now()))

    def answer(self, text: str, model: str, finish_reason: str) -> None:
        """Add the model's answer to the open question, as far as it came."""
        reply = FileMessage(
            role="assistant", content=text, timestamp=_now(), model=model or None, finish_reason=finish_reason
        )
        self.messages.append(reply)

    def fail(self, code: str | None) -> None:
        """The open question got no answer."""
        if self.open_question is not None:
            self.messages[-1] = msgspec.structs.replace(self.messages[-1], error=code or "error")

    def reopen(self) -> str | None:
        """Take back the answer to the last question, and return the question; None where nothing was asked."""
        while self.messages and self.messages[-1].role == "assistant":
            self.messages.pop()
        if not self.messages:
            return None
        self.messages[-1] = msgspec.structs.replace(self.messages[-1], error=None)
        return self.messages[-1].content

    def prompt(self) -> list[dict[str, str]]:
        """The messages of a request: without questions that got no answer, and without turns that were left out."""
        turns = self._turns()[self.num_left_out :]
        if self._origin.max_length is not None:
            turns = turns[-self._origin.max_length :]
        said = [{"role": message.role, "content": message.content} for turn in turns for message in turn]
        return said if self.system is None else [{"role": "system", "content": self.system}, *said]

    def leave_out_oldest(self) -> bool:
        """Shorten what the next prompts carry by a quarter of its turns; False where only the question is left.

        Several turns at once, so that the beginning of the prompt, which the server has cached, stays for a while.
        """
        num_turns = len(self._turns()) - self.num_left_out
        self.num_left_out += max(1, num_turns // 4) if num_turns > 1 else 0
        return num_turns > 1

    def to_file(self, model: str | None, generation: GenerationDefaults | None) -> ConversationFile:
        """The saved form."""
        messages = list(self.messages)
        if self.system is not None:
            messages.insert(0, FileMessage(role="system", content=self.system))
        now = _now()
        return msgspec.structs.replace(
            self._origin,
            title=self.title,
            created_at=self._origin.created_at or next((one.timestamp for one in self.messages), now),
            updated_at=now,
            model=model,
            generation=generation,
            messages=messages,
            message_count=count_by_role(messages),
        )

    def load(self, file: ConversationFile) -> None:
        """Go on with a saved conversation."""
        self._origin = msgspec.structs.replace(file, messages=[])
        has_system = bool(file.messages) and file.messages[0].role == "system"
        self.system = file.messages[0].content if has_system else None
        self.messages = list(file.messages[has_system:])
        self.num_left_out = 0

    def clear(self) -> None:
        """Begin a new one with the same system prompt."""
        self._origin = ConversationFile(messages=[])
        self.messages = []
        self.num_left_out = 0

    def _turns(self) -> list[list[FileMessage]]:
        """Each a question with its answers; the last may have none yet."""
        turns: list[list[FileMessage]] = []
        for index, message in enumerate(self.messages):
            is_last = index + 1 == len(self.messages)
            is_answered = not is_last and self.messages[index + 1].role == "assistant"
            if message.role == "assistant" and turns:
                turns[-1].append(message)
            elif message.role == "assistant" or is_last or is_answered:
                turns.append([message])
        return turns


def decode_dialogue(content: bytes, name: str) -> ConversationFile:
    """A saved conversation, checked as the server's import does it. Raises InvalidValue that names the file."""
    try:
        file = msgspec.json.decode(content, type=ConversationFile)
        read_file(file, unix_ms())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{name} is no saved conversation: {clip(str(error))}.") from None
    except InvalidValue as error:
        raise InvalidValue(f"{name} cannot be loaded: {error.message}") from None
    return file


def encode_dialogue(file: ConversationFile) -> bytes:
    """Indented JSON, as the API exports it."""
    return encode_file(file)


def to_markdown(file: ConversationFile) -> str:
    """For people: a heading for each speaker."""
    parts = [f"# {file.title}"] if file.title else []
    for message in file.messages:
        who = {"system": "System", "user": "You"}.get(message.role, message.model or "Model")
        parts.append(f"## {who}\n\n{message.content.strip()}")
    return "\n\n".join(parts) + "\n"


def _now() -> str:
    return iso_time(unix_ms() // 1000)
