"""A client that reads events one by one, may leave at any of them, and knows which worker it talks to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from tests.system.process_tree import server_of
from tests.system.quire_process import QuireProcess

DETACH = {"x-quire-detach": "keep"}
_NUMBER = re.compile(r"^id: ([0-9]+)$", re.MULTILINE)


class EventReader:
    """One streamed reply."""

    def __init__(self, quire: QuireProcess, reply: httpx.Response) -> None:
        self.status = reply.status_code
        self.worker_pid = server_of(
            quire.worker_pids, reply.extensions["network_stream"].get_extra_info("client_addr")[1]
        )
        self._chunks = reply.aiter_text()
        self._buffer = ""

    async def take(self, num_events: int = 10**9) -> list[str]:
        """So many events, without the blank line behind them; fewer where the stream ends or breaks."""
        events: list[str] = []
        while len(events) < num_events:
            block, separator, rest = self._buffer.partition("\n\n")
            if separator:
                self._buffer = rest
                events.append(block)
                continue
            try:
                self._buffer += await anext(self._chunks)
            except (StopAsyncIteration, httpx.TransportError):
                break
        return [one for one in events if not one.startswith(":")]


@asynccontextmanager
async def submitted(quire: QuireProcess, body: dict[str, Any], **headers: str) -> AsyncIterator[EventReader]:
    """A streamed completion on a connection of its own; leaving the context leaves the server."""
    wanted = {"prompt": [1, 2, 3], "stream": True, "ignore_eos": True} | body
    async with _stream(quire, "POST", "/v1/completions", json=wanted, headers=headers) as reader:
        yield reader


@asynccontextmanager
async def followed(quire: QuireProcess, any_id: str, after: int = 0) -> AsyncIterator[EventReader]:
    """The events of a request behind a number."""
    headers = {"last-event-id": str(after)}
    async with _stream(quire, "GET", f"/v1/requests/{any_id}/events", headers=headers) as reader:
        yield reader


@asynccontextmanager
async def _stream(quire: QuireProcess, method: str, path: str, **options: Any) -> AsyncIterator[EventReader]:
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream(method, f"{quire.address}{path}", **options) as reply,
    ):
        yield EventReader(quire, reply)


async def follow_to_end(quire: QuireProcess, any_id: str, after: int = 0) -> list[str]:
    """All events behind a number."""
    async with followed(quire, any_id, after) as reader:
        return await reader.take()


async def status_of(quire: QuireProcess, any_id: str, method: str = "GET") -> dict[str, Any]:
    """The record of a request, or what DELETE answers."""
    async with httpx.AsyncClient(headers={"connection": "close"}) as client:
        told: dict[str, Any] = (await client.request(method, f"{quire.address}/v1/requests/{any_id}")).json()
        return told


def numbers_of(events: list[str]) -> list[int]:
    return [int(number) for event in events for number in _NUMBER.findall(event)]


def text_of(events: list[str]) -> str:
    """What the choices of completion events say together."""
    payloads = [event.rpartition("data: ")[2] for event in events]
    chunks = [msgspec.json.decode(payload) for payload in payloads if payload.startswith("{")]
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


def error_of(events: list[str]) -> str | None:
    """The code of the error that a stream ended with."""
    last = events[-1].removeprefix("data: ") if events else ""
    return msgspec.json.decode(last)["error"]["code"] if last.startswith('{"error"') else None
