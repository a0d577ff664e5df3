"""Asks a server for its health while others load it. A server that has no /health is not asked again."""

from __future__ import annotations

import asyncio
import contextlib
import time

from service.bench.client import BodyResponse
from service.bench.connection import ConnectionPool, ExchangeFailed, encode_request, exchange_pooled, parse_base_url

PROBE_EVERY_S = 0.1
TIMEOUT_S = 10.0
HTTP_OK = 200


class HealthProbe:
    """A context: asks from its beginning to its end. Owner: one loader process."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self._pool = ConnectionPool(parse_base_url(base_url.rstrip("/").removesuffix("/v1")))
        self._request = encode_request(self._pool.address, "GET", "/health", api_key=api_key)
        self._task: asyncio.Task[None] | None = None
        self._is_over = asyncio.Event()
        self.latencies_s: list[float] = []
        """From the sending to the last byte, of every answer; one that does not come counts as TIMEOUT_S."""

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def __aexit__(self, *error: object) -> None:
        self._is_over.set()
        if self._task is not None:
            await self._task  # the answer that is on its way counts too
        self._pool.close()

    async def _run(self) -> None:
        while not self._is_over.is_set():
            began_s = time.monotonic()
            status = await self._ask()
            if status != HTTP_OK and not self.latencies_s:
                return
            self.latencies_s.append(time.monotonic() - began_s if status == HTTP_OK else TIMEOUT_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), PROBE_EVERY_S)

    async def _ask(self) -> int:
        """The status of one answer; 0 where none came."""
        response = BodyResponse()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await exchange_pooled(self._pool, self._request, response)
        except (ExchangeFailed, OSError, TimeoutError):
            return 0
        return response.parser.status
