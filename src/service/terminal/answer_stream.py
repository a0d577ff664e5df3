"""Asks the server for an answer and reads it as it comes; leaving early ends the request at the server.

Knows the wire and no terminal.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Self

import msgspec

from contracts.errors import QuireError
from contracts.explanation import Explanation
from contracts.openai.common import Usage
from service.terminal.api_client import ApiClient

WAIT_BEFORE_ASKING_S = 0.4
ASK_EVERY_S = 0.6
LEAVE_WITHIN_S = 0.5
"""How long an answer waits for a question for its place that is under way; a server that hangs gets no more."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    model: str
    messages: list[dict[str, str]]
    options: dict[str, Any]
    """Preset and sampling values, as the body names them."""
    is_base: bool = False
    """The model has no chat template: it continues the last message."""
    conversation: str | None = None
    """Of the server; `messages` are then what is new in it."""

    @property
    def path(self) -> str:
        """The route."""
        return "/v1/completions" if self.is_base else "/v1/chat/completions"

    @property
    def body(self) -> dict[str, Any]:
        """What is posted."""
        common = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, **self.options}
        if self.is_base:
            return common | {"prompt": self.messages[-1]["content"]}
        if self.conversation is not None:
            common["conversation"] = self.conversation
        return common | {"messages": self.messages}


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """What is read of a chunk, of either route."""

    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    usage: Usage | None = None
    trace_id: str | None = None


class Answer:
    """What is known of one answer; written while it is read, and whole or cut at the end."""

    def __init__(self) -> None:
        self.request_id = f"chat-{secrets.token_hex(8)}"
        """The x-request-id that is sent: the server can be asked for it before anything has come."""
        self.text = ""
        self.model = ""
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.trace_id: str | None = None
        self.num_pieces = 0
        self.started_s = time.monotonic()
        self.first_s: float | None = None
        self.last_s = self.started_s

    @property
    def num_tokens(self) -> int:
        """As the server counts them, or, where the answer was cut, the pieces that came."""
        return self.num_pieces if self.usage is None else self.usage.completion_tokens

    @property
    def ttft_s(self) -> float | None:
        """From sending the question to the first text."""
        return None if self.first_s is None else self.first_s - self.started_s

    @property
    def tokens_per_s(self) -> float | None:
        """Behind the first."""
        if self.first_s is None or self.num_tokens < 2 or self.last_s <= self.first_s:
            return None
        return (self.num_tokens - 1) / (self.last_s - self.first_s)

    def take(self, data: str) -> str:
        """Note one event and return the text that it brings."""
        chunk = msgspec.json.decode(data, type=_Chunk)
        self.model = chunk.model or self.model
        self.usage = chunk.usage or self.usage
        self.trace_id = chunk.trace_id or self.trace_id
        piece = ""
        for choice in chunk.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
            piece += choice.text or (choice.delta.content if choice.delta is not None else None) or ""
        if piece:
            self.last_s = time.monotonic()
            self.first_s = self.last_s if self.first_s is None else self.first_s
            self.num_pieces += 1
            self.text += piece
        return piece


def read_answer(client: ApiClient, question: Question, answer: Answer) -> Generator[str, None, None]:
    """The pieces of text as they come, noted in `answer` too; closing the iterator ends the request.

    Raises RequestRefused before the first piece or behind any, ConnectionLost, ServerUnreachable.
    """
    answer.started_s = time.monotonic()
    headers = {"x-request-id": answer.request_id}
    with client.stream("POST", question.path, question.body, headers) as events:
        answer.trace_id = events.headers.get("x-trace-id")
        for event in events:
            piece = answer.take(event.data)
            if piece:
                yield piece


class QueueWatch:
    """Asks, in a thread, for the place in the queue of a request that has no text yet. A context."""

    def __init__(self, client: ApiClient, request_id: str) -> None:
        self._client = client
        self._request_id = request_id
        self._is_over = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self.num_ahead: int | None = None
        """Sequences that go first, where the server has said so."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(LEAVE_WITHIN_S)

    def stop(self) -> None:
        """Ask no more; may be called again."""
        self._is_over.set()

    def _watch(self) -> None:
        pause_s = WAIT_BEFORE_ASKING_S
        while not self._is_over.wait(pause_s):
            pause_s = ASK_EVERY_S
            self.num_ahead = None
            # Not admitted yet, or no right to ask: there is no place to show. RuntimeError: the client was closed.
            with suppress(QuireError, RuntimeError):
                self.num_ahead = find_request(self._client, self._request_id).queue_position


def find_request(client: ApiClient, any_id: str) -> Explanation:
    """Where the time of a request went, by any of its ids."""
    from urllib.parse import quote

    return client.get_json(f"/v1/requests/{quote(any_id, safe='')}", Explanation)
