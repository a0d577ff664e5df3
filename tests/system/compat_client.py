"""Talks to a server as the clients of older services did, each request on a connection of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from tests.system.event_client import EventReader
from tests.system.quire_process import QuireProcess

ALONE = {"connection": "close"}
"""So that any worker may take it."""
QUESTION = [{"role": "user", "content": "Hello, how are you?"}]


def client_of(quire: QuireProcess) -> httpx.Client:
    """A client in the words of the old tests."""
    return httpx.Client(base_url=quire.address, timeout=60, headers=ALONE)


def events_of(text: str) -> list[str]:
    """The blocks of an event stream, without comments."""
    return [block for block in text.split("\n\n") if block and not block.startswith(":")]


def data_of(event: str) -> Any:
    """The JSON of an event."""
    return msgspec.json.decode("\n".join(re.findall(r"^data: (.*)$", event, flags=re.MULTILINE)))


@asynccontextmanager
async def listening(quire: QuireProcess, client_id: str, **headers: str) -> AsyncIterator[EventReader]:
    """A connection under a client id, once the server has said that it is there."""
    async with (
        httpx.AsyncClient(timeout=60, headers=headers) as client,
        client.stream("GET", f"{quire.address}/api/v1/chat/stream/{client_id}") as reply,
    ):
        reader = EventReader(quire, reply)
        await reader.take(1)  # the comment that says so
        yield reader


async def submit(quire: QuireProcess, client_id: str, prompt: str = "Hello", **more: Any) -> httpx.Response:
    """Post a prompt for whoever listens, over a connection of its own."""
    headers = ALONE | more.pop("headers", {})
    async with httpx.AsyncClient(timeout=60, headers=headers) as client:
        body = {"prompt": prompt, "client_id": client_id} | more
        return await client.post(f"{quire.address}/api/v1/chat/submit", json=body)
