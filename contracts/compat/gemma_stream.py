"""Wire structs of connect-then-submit streaming: a client listens under an id of its own, then posts a prompt to it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_CLIENT_ID_LEN = 128

ClientId = Annotated[str, Meta(min_length=1, max_length=MAX_CLIENT_ID_LEN)]


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /api/v1/chat/submit."""

    prompt: str
    context: str | None = None
    """A text that the prompt asks about."""
    client_id: ClientId


class SubmitReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever listens under the id has the prompt."""

    message: str = "Chat request received and queued for processing."


class TokenEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of text."""

    token: str


class EndEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Data of the event `end`, which is always the last."""

    message: str
