"""HTTP/1.1 connections for a load generator: one asyncio.Protocol each, kept alive and pooled.

Costs a few microseconds a read. Knows framing only: what a reply means is its Response's business.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Protocol, cast
from urllib.parse import urlsplit

import msgspec

from service.bench.http_parser import ResponseFramingError, ResponseParser


class ExchangeFailed(Exception):
    """The connection or the bytes on it broke; `is_retriable` when a kept connection closed before any reply."""

    def __init__(self, message: str, *, is_retriable: bool = False) -> None:
        super().__init__(message)
        self.is_retriable = is_retriable


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a base URL points."""

    host: str
    port: int
    path: str
    is_tls: bool


def parse_base_url(base_url: str) -> Address:
    """Split a base URL such as http://127.0.0.1:8000/v1. Raises ValueError when it is not http or https."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base URL {base_url!r} is not http://HOST:PORT/PATH; an example is http://127.0.0.1:8000/v1")
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    return Address(host=parts.hostname, port=port, path=parts.path.rstrip("/"), is_tls=is_tls)


def encode_request(address: Address, method: str, path: str, body: bytes = b"", api_key: str | None = None) -> bytes:
    """The bytes of one request."""
    lines = [
        f"{method} {address.path}{path} HTTP/1.1",
        f"Host: {address.host}:{address.port}",
        "Accept: */*",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if api_key is not None:
        lines.append(f"Authorization: Bearer {api_key}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Response(Protocol):
    """What takes the bytes of one reply as they arrive."""

    parser: ResponseParser

    def feed(self, data: bytes, now_s: float) -> None:
        """Take the bytes of one socket read."""


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time; after a failure or a `Connection: close` it is not reusable."""

    def __init__(self) -> None:
        self.is_open = False
        self._num_exchanges = 0
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is up."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """asyncio: one socket read."""
        now_s = time.monotonic()
        response = self._response
        if response is None:
            self.close()
            return
        try:
            response.feed(data, now_s)
        except (ResponseFramingError, ExchangeFailed, ValueError) as error:
            self._fail(ExchangeFailed(str(error)))
            return
        if response.parser.is_complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: closed by either side."""
        self.is_open = False
        response = self._response
        if response is None:
            return
        response.parser.feed_eof()
        if response.parser.is_complete:
            self._finish()
            return
        is_untouched = response.parser.status == 0 and self._num_exchanges > 1
        reason = f": {exc}" if exc else ""
        self._fail(ExchangeFailed(f"connection closed before the reply ended{reason}", is_retriable=is_untouched))

    async def exchange(self, request: bytes, response: Response) -> None:
        """Send one request and return when its reply is complete. Raises ExchangeFailed."""
        if self._transport is None or not self.is_open:
            raise ExchangeFailed("connection closed", is_retriable=self._num_exchanges > 0)
        self._num_exchanges += 1
        self._response = response
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._waiter
        finally:
            self._response = None

    def close(self) -> None:
        """Close now; an exchange in progress fails."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        response, self._response = self._response, None
        if response is not None and not response.parser.is_keep_alive:
            self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: ExchangeFailed) -> None:
        self._response = None
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class ConnectionPool:
    """Kept connections to one address; owned by one event loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Connection] = []

    async def acquire(self) -> Connection:
        """An idle connection, or a new one. Raises OSError."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        context = ssl.create_default_context() if self.address.is_tls else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.address.host, self.address.port, ssl=context)
        return connection

    def release(self, connection: Connection) -> None:
        """Keep a connection that can carry another exchange."""
        if connection.is_open:
            self._idle.append(connection)

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop().close()


async def exchange_pooled(pool: ConnectionPool, request: bytes, response: Response) -> None:
    """One exchange on a pooled connection, again on another when a kept one had been closed by the server."""
    while True:
        connection = await pool.acquire()
        try:
            await connection.exchange(request, response)
        except ExchangeFailed as failure:
            if not failure.is_retriable:
                raise
        except BaseException:
            connection.close()
            raise
        else:
            pool.release(connection)
            return
