"""What was asked and answered, for the span of a request, where an operator has switched that on; else nothing is kept.

The form is that of the GenAI conventions, which Jaeger's view reads: JSON text of messages with a role and parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from contracts.openai.chat import Message
from contracts.openai.completions import Prompt
from contracts.settings import ServerSettings
from service import genai
from service.chat_messages import template_messages
from service.detokenizer import TextPiece

MAX_CHARS = 64 * 1024
"""Of the texts of one request, and of those of its reply; the rest is cut off."""
CUT = " [cut]"
_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class TextPart(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a message; there are only texts."""

    type: str = "text"
    content: str


class ContentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the conventions' JSON."""

    role: str
    parts: list[TextPart]
    finish_reason: str | msgspec.UnsetType = msgspec.UNSET
    """Of what the model said."""


def is_wanted(settings: ServerSettings) -> bool:
    """Someone has asked for texts in spans: the setting, or the variable of the conventions."""
    return settings.trace_content or os.environ.get(_VARIABLE, "").lower() in ("true", "span_only", "span_and_event")


class MessageContent:
    """Owner: one reply. Life cycle: made with what was asked -> add what is said -> attributes."""

    def __init__(self, asked: Iterable[tuple[str, str]]) -> None:
        self._asked = list(asked)
        self._said: dict[int, list[str]] = {}
        self._reasons: dict[int, str] = {}
        self._num_chars_left = MAX_CHARS

    def add(self, choice: int, piece: TextPiece) -> None:
        """The next words of one choice."""
        if self._num_chars_left > 0:
            self._said.setdefault(choice, []).append(piece.text[: self._num_chars_left])
            self._num_chars_left -= len(piece.text)
        if piece.finish_reason is not None:
            self._reasons[choice] = piece.finish_reason

    def attributes(self) -> dict[str, str]:
        """Both sides as JSON texts."""
        said = {choice: "".join(texts) for choice, texts in sorted(self._said.items())}
        cut = CUT if self._num_chars_left < 0 else ""
        replies = [
            _message("assistant", text + cut, self._reasons.get(choice, msgspec.UNSET)) for choice, text in said.items()
        ]
        return {genai.INPUT_MESSAGES: _encode(_clipped(self._asked)), genai.OUTPUT_MESSAGES: _encode(replies)}


def of_chat(settings: ServerSettings, messages: list[Message]) -> MessageContent | None:
    """The content of a chat request; None unless wanted."""
    if not is_wanted(settings):
        return None
    return MessageContent((message["role"], message["content"]) for message in template_messages(messages))


def of_completion(settings: ServerSettings, prompt: Prompt) -> MessageContent | None:
    """The content of a text completion; token ids are no text. None unless wanted."""
    if not is_wanted(settings):
        return None
    prompts = [prompt] if isinstance(prompt, str) else prompt
    return MessageContent(("user", text) for text in prompts if isinstance(text, str))


def _clipped(asked: list[tuple[str, str]]) -> list[ContentMessage]:
    """The newest messages whole, as far as the room goes: they are what the reply is about."""
    told: list[ContentMessage] = []
    num_left = MAX_CHARS
    for role, text in reversed(asked):
        if num_left <= 0:
            break
        told.append(_message(role, text if len(text) <= num_left else text[:num_left] + CUT))
        num_left -= len(text)
    return told[::-1]


def _message(role: str, text: str, reason: str | msgspec.UnsetType = msgspec.UNSET) -> ContentMessage:
    return ContentMessage(role=role, parts=[TextPart(content=text)], finish_reason=reason)


def _encode(messages: list[ContentMessage]) -> str:
    return msgspec.json.encode(messages).decode()
