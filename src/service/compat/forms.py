"""Forms of replies that several older services share: whole replies of their own, and streams of plain pieces."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from contracts.compat.gemma_stream import TokenEvent
from contracts.errors import QuireError
from contracts.openai.common import Usage
from service.detokenizer import TextPiece
from service.error_responses import encode_error
from service.routes.generation import ChoiceText, Framing
from service.sse import event

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_ENCODER: Final = msgspec.json.Encoder()


class WholeForm:
    """A ReplyForm that has no events; a subclass makes the body of what `collect` has kept."""

    def __init__(self) -> None:
        self._choices: dict[int, ChoiceText] = {}

    def opening(self, num_choices: int) -> bytes:
        """Nothing."""
        return b""

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """Nothing."""

    def closing(self, usage: Usage) -> bytes:
        """Nothing."""
        return b""

    def collect(self, choice: int, piece: TextPiece) -> None:
        """Keep a piece for `body`."""
        self._choices.setdefault(choice, ChoiceText()).add(piece)

    def body(self, num_choices: int, usage: Usage) -> bytes:
        """The subclass's matter."""
        raise NotImplementedError

    def _text(self, choice: int = 0) -> str:
        return self._choices[choice].text


class TextForm(WholeForm):
    """Events of bare text; one of several lines is several `data:` lines."""

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """One event for each piece."""
        if piece.text:
            out.append(text_event(piece.text))


class TokenForm(WholeForm):
    """Events of the form {"token": "..."}."""

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """One event for each piece."""
        if piece.text:
            out.append(event(_ENCODER.encode(TokenEvent(token=piece.text))))


class NamedErrorFraming(Framing):
    """The stream ends as it is; an error is an event of the name `error`."""

    done = b""

    def error(self, error: QuireError) -> bytes:
        """The last event of a stream that failed."""
        return named_event("error", encode_error(error))


NAMED_ERRORS: Final = NamedErrorFraming()


def text_event(text: str) -> bytes:
    """One event that carries any text."""
    lines = b"\ndata: ".join(line.encode() for line in _LINE_END.split(text))
    return b"data: " + lines + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    """One event of a name of its own; `data` is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
