"""Server-sent events on the wire: event bytes, and the ASGI reply that writes them until the client leaves.

Knows nothing of tokens or engines: it is given an async iterator of ready bytes, and something to call at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
from litestar.types import Message, Receive, Scope, Send

HEARTBEAT_S = 15.0
STALL_TIMEOUT_S = 30.0
TICK_S = 5.0

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": keep-alive\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

_log = structlog.get_logger("service.sse")
T = TypeVar("T")


def event(data: bytes) -> bytes:
    """One event; `data` is JSON on one line."""
    return b"data: " + data + b"\n\n"


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has gone; whatever else it sends is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None after the client left and `work` was cancelled."""
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(wait_for_disconnect(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        return worker.result() if worker.done() else None
    finally:
        await end_tasks(worker, watcher)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what still runs and wait for it, so that nothing outlives its request."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class EventStreamReply:
    """Owner of one streamed reply: sends the head, then each batch in one send, and always calls `close`.

    The 200 goes out when the first batch is asked for, so whatever must be able to fail with another status has
    happened before this object exists. A client that is gone cancels the writer wherever it waits, be it for tokens
    or inside a blocked send.
    """

    def __init__(
        self,
        batches: AsyncIterator[bytes],
        close: Callable[[], None],
        *,
        extra_headers: list[tuple[bytes, bytes]] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        tick_s: float = TICK_S,
    ) -> None:
        self._batches = batches
        self._close = close
        self._headers = HEADERS + (extra_headers or [])
        self._heartbeat_s = heartbeat_s
        self._stall_timeout_s = stall_timeout_s
        self._tick_s = tick_s
        self._send_lock = asyncio.Lock()
        self._send_began_s: float | None = None
        self._last_sent_s = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        writer = asyncio.create_task(self._write(send))
        watcher = heartbeat = asyncio.create_task(wait_for_disconnect(receive))
        try:
            while not writer.done() and not watcher.done():
                await asyncio.wait({writer, watcher}, timeout=self._tick_s, return_when=asyncio.FIRST_COMPLETED)
                if self._is_stalled():
                    _log.warning("stream_stalled", stall_timeout_s=self._stall_timeout_s)
                    return
                if self._is_idle() and not writer.done():
                    heartbeat = asyncio.create_task(self._send(send, _body(HEARTBEAT)))
            if writer.done():
                writer.result()
        finally:
            self._close()
            await end_tasks(writer, watcher, heartbeat)
            await _aclose(self._batches)

    async def _write(self, send: Send) -> None:
        await self._send(send, {"type": "http.response.start", "status": 200, "headers": self._headers})
        async for batch in self._batches:
            await self._send(send, _body(batch))
        await self._send(send, _body(b"", more_body=False))

    async def _send(self, send: Send, message: Message) -> None:
        async with self._send_lock:
            self._send_began_s = time.monotonic()
            await send(message)
            self._send_began_s = None
            self._last_sent_s = time.monotonic()

    def _is_stalled(self) -> bool:
        began_s = self._send_began_s
        return began_s is not None and time.monotonic() - began_s > self._stall_timeout_s

    def _is_idle(self) -> bool:
        """Nothing was sent for so long that a proxy may cut the connection, and nothing is being sent."""
        return not self._send_lock.locked() and time.monotonic() - self._last_sent_s >= self._heartbeat_s


def _body(body: bytes, *, more_body: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


async def _aclose(batches: AsyncIterator[bytes]) -> None:
    aclose: Callable[[], Awaitable[None]] | None = getattr(batches, "aclose", None)
    if aclose is not None:
        await aclose()
