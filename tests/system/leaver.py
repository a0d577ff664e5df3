"""A client on a bare socket that reads, or does not, and leaves when and how the test says."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import msgspec

from tests.system.stream_client import FOREVER

PATIENCE_S = 30.0


class Leaver:
    """One POST to /v1/completions. Life cycle: send -> read_until -> leave."""

    def __init__(self, address: str, **body: Any) -> None:
        self._port = httpx.URL(address).port
        self._body = {"prompt": [1, 2, 3], "max_tokens": FOREVER, "ignore_eos": True} | body

    async def send(self, receive_buffer_bytes: int | None = None) -> None:
        """Connect and send the whole request."""
        connection = socket.socket()
        if receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        self.reader, self.writer = await asyncio.open_connection(sock=connection, limit=2**20)
        body = msgspec.json.encode(self._body)
        head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def read_until(self, text: bytes) -> None:
        """Read what comes until it holds `text`."""
        async with asyncio.timeout(PATIENCE_S):
            await self.reader.readuntil(text)

    def leave(self, *, abruptly: bool) -> None:
        """Close the connection, with a reset or in order."""
        self.writer.transport.abort() if abruptly else self.writer.close()

    def stop_reading(self) -> None:
        """Take nothing more from the kernel, which then takes nothing more from the server."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # there is no public way


def leave_all(leavers: list[Leaver]) -> None:
    """Half of them with a reset."""
    for index, leaver in enumerate(leavers):
        leaver.leave(abruptly=index % 2 == 0)
