"""One smoke test of one server: sends requests, holds replies against the shapes of the API's own description.

Owns the connection and what the checks learn from one another. Knows no check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from contracts.checkup import Finding
from contracts.errors import QuireError
from contracts.openai.models import ModelCard, ModelList
from service.openapi_operations import operations
from service.terminal.api_client import ApiClient, Exchange, refusal_of
from service.terminal.event_stream import ServerEvent, read_events

INSUFFICIENT_SCOPE = "insufficient_scope"
_T = TypeVar("_T")


class SmokeFailure(QuireError):
    """A reply is not what it should be; the message says which and how."""


class NotTried(QuireError):
    """A check does not apply to this server or this key; the message says why."""


class SmokeCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check, with every route that it exercises, as `GET /health`."""

    name: str
    routes: tuple[str, ...]
    run: Callable[[SmokeSession], Finding]
    is_optional: bool = False
    """Skipped where the server serves none of the routes."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that was expected, in its declared shape where it is JSON."""

    route: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    def read(self, kind: type[_T]) -> _T:
        """The body as a type. Raises SmokeFailure."""
        try:
            return msgspec.json.decode(self.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SmokeFailure(f"{self.route} answers in another shape than declared: {error}.") from None

    def events(self) -> list[ServerEvent]:
        """The body as events; raises SmokeFailure where it is none, or one of them is an error."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            raise SmokeFailure(f"{self.route} should stream events, but sends {self.headers.get('content-type')}.")
        events = list(read_events([self.content]))
        for event in events:
            if event.event == "error" or event.data.startswith('{"error"'):
                raise SmokeFailure(f"{self.route} ends with an error: {refusal_of(event.data.encode(), 500).message}")
        return events

    def chunks(self, kind: type[_T]) -> list[_T]:
        """The events of a stream that ends with [DONE]."""
        events = self.events()
        if not events or events[-1].data != "[DONE]":
            raise SmokeFailure(f"{self.route} ends its stream without [DONE].")
        decoder = msgspec.json.Decoder(kind)
        try:
            return [decoder.decode(event.data) for event in events[:-1]]
        except msgspec.DecodeError as error:
            raise SmokeFailure(f"{self.route} sends an event in another shape than declared: {error}.") from None


class SmokeSession:
    """Owner: one run. `chat_reply_id` and `trace_id` are left by the first generation for those who look it up."""

    def __init__(self, client: ApiClient, model: str | None) -> None:
        self.client = client
        self.exercised: set[str] = set()
        self.card = self._choose(model)
        self.reply_id: str | None = None
        self.reply_text = ""
        self.trace_id: str | None = None
        self._shapes = {f"{one.method.upper()} {one.path}": one.reply for one in operations()}
        self._served: set[str] | None = None

    @property
    def model(self) -> str:
        return self.card.id

    def _choose(self, wanted: str | None) -> ModelCard:
        """The model that is tried: as wanted, else the default one."""
        cards = self.client.get_json("/v1/models", ModelList).data
        for card in cards:
            if card.id == wanted or (wanted is None and card.is_default):
                return card
        if not cards or wanted is not None:
            known = ", ".join(card.id for card in cards) or "none"
            raise SmokeFailure(f"There is no model '{wanted or ''}' at {self.client.url}. Listed: {known}.")
        return cards[0]

    def served(self) -> set[str] | None:
        """The routes of the server's own description; None where it shows none."""
        if self._served is None:
            reply = self.client.exchange("GET", "/openapi.json")
            if reply.status != 200:
                return None
            document = msgspec.json.decode(reply.content)
            self._served = {
                f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
            }
        return self._served

    def call(
        self,
        route: str,
        body: object = None,
        *,
        path: str | None = None,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Reply:
        """Exercise a route; `path` is the route's with its parameters filled in.

        Raises SmokeFailure for another status or another shape, NotTried where the key may not do it.
        """
        method, _, template = route.partition(" ")
        self.exercised.add(route)
        exchange = self.client.exchange(method, (path or template) + query, body, headers)
        if exchange.status != status:
            self._complain(route, exchange, status)
        reply = Reply(route=route, status=status, headers=exchange.headers, content=exchange.content)
        shape = self._shapes.get(route)
        is_json = exchange.headers.get("content-type", "").startswith("application/json")
        if shape is not None and is_json and status < 300:
            reply.read(shape)
        return reply

    def refused(self, route: str, body: object, *, status: int, path: str | None = None) -> dict[str, Any]:
        """A request that must be refused; returns the error of its body."""
        reply = self.call(route, body, path=path, status=status)
        error = reply.read(dict[str, Any]).get("error")
        if not isinstance(error, dict) or not error.get("message"):
            raise SmokeFailure(f"{route} refuses with {status}, but its body holds no error with a message.")
        return error

    def _complain(self, route: str, exchange: Exchange, wanted: int) -> None:
        refusal = refusal_of(exchange.content, exchange.status, exchange.headers.get("retry-after"))
        if exchange.status == 403 and refusal.code == INSUFFICIENT_SCOPE:
            raise NotTried(refusal.message)
        said = refusal.message if exchange.status >= 400 else "no refusal"
        raise SmokeFailure(f"{route} answers {exchange.status} instead of {wanted}: {said}")


def demand(is_so: bool, message: str) -> None:
    """Raise SmokeFailure unless it is so."""
    if not is_so:
        raise SmokeFailure(message)


def quoted(part: str) -> str:
    """A part of a path; a model's id keeps its slashes."""
    return quote(part, safe="/")
