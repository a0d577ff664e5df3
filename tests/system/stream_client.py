"""A client that says how its request ended and when: for tests in which things go wrong on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import msgspec

FOREVER = 90_000
"""Tokens that no test waits for."""


class Ending(NamedTuple):
    """What a client saw of one request."""

    status: int | None
    """None: the connection broke before there was a status."""
    is_done: bool
    """A stream that ended with [DONE], or a whole JSON reply."""
    error_code: str | None
    """Of the error event or the error body."""
    num_events: int
    headers: httpx.Headers
    ended_s: float
    """On the monotonic clock."""

    @property
    def is_cut(self) -> bool:
        """It ended without a word."""
        return not self.is_done and self.error_code is None


class StreamClient:
    """One POST to /v1/completions; `begun` is set with the first event that carries text."""

    def __init__(self, address: str, **body: Any) -> None:
        self._url = f"{address}/v1/completions"
        self._body = {"prompt": [1, 2, 3], "max_tokens": FOREVER, "stream": True, "ignore_eos": True} | body
        self.begun = asyncio.Event()
        self.num_events = 0
        self._status: int | None = None
        self._headers = httpx.Headers()

    async def run(self) -> Ending:
        """Until the request has ended in whatever way."""
        last = b""
        try:
            async with (
                httpx.AsyncClient(timeout=120, headers={"connection": "close"}) as client,
                client.stream("POST", self._url, json=self._body) as reply,
            ):
                self._status, self._headers = reply.status_code, reply.headers
                async for line in reply.aiter_lines():
                    if line:
                        last = line.encode()
                        self._note()
        except httpx.TransportError:
            return self._ending(b"")
        return self._ending(last.removeprefix(b"data: "))

    def _note(self) -> None:
        """The first event only names the choices."""
        self.num_events += 1
        if self.num_events > 1:
            self.begun.set()

    def _ending(self, last: bytes) -> Ending:
        error_code, is_done = None, last == b"[DONE]"
        if last.startswith(b"{"):
            decoded = msgspec.json.decode(last)
            error_code = decoded["error"]["code"] if "error" in decoded else None
            is_done = error_code is None and not self._body["stream"]
        ended_s = time.monotonic()
        return Ending(self._status, is_done, error_code, self.num_events, self._headers, ended_s)


async def until_begun(clients: list[StreamClient]) -> None:
    """Return when each has text."""
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.begun.wait() for client in clients))


async def until_ready(address: str, within_s: float = 60.0) -> float:
    """Seconds until /readyz says yes."""
    began_s = time.monotonic()
    async with asyncio.timeout(within_s), httpx.AsyncClient() as client:
        while await status_of(client, f"{address}/readyz") != 200:
            await asyncio.sleep(0.05)
    return time.monotonic() - began_s


async def status_of(client: httpx.AsyncClient, url: str) -> int | None:
    """None where the connection breaks, as when a worker has just been killed."""
    try:
        return (await client.get(url, headers={"connection": "close"})).status_code
    except httpx.TransportError:
        return None


async def stats_of(address: str) -> dict[str, Any]:
    """The engine's counters, from any worker."""
    async with httpx.AsyncClient() as client:
        stats: dict[str, Any] = (await client.get(f"{address}/stats")).json()["engine"]
        return stats


async def until_stats(
    address: str, condition: Callable[[dict[str, Any]], bool], within_s: float = 60.0
) -> dict[str, Any]:
    """The first counters that satisfy the condition."""
    async with asyncio.timeout(within_s):
        while not condition(stats := await stats_of(address)):
            await asyncio.sleep(0.05)
    return stats


def is_idle(stats: dict[str, Any]) -> bool:
    """Nothing runs or waits, and the step that ran last has given its blocks back."""
    num_open: int = stats["num_running"] + stats["num_waiting"]
    num_held_blocks: int = stats["num_blocks"] - stats["num_free_blocks"]
    return num_open == num_held_blocks == 0
