"""The benchmark asks for a server's health while it loads it, where the server has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from service.bench import health_probe
from service.bench.health_probe import TIMEOUT_S, HealthProbe

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
MISSING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def answering(reply: Callable[[int], bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers the nth request with `reply(n)`; its address, and what it was asked."""
    asked: list[bytes] = []
    connections: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.create_task(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65536):
            asked.append(head)
            writer.write(reply(len(asked) - 1))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", asked
    server.close()
    await asyncio.gather(*connections)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "PROBE_EVERY_S", 0.01)


async def probe(url: str, asked: list[bytes], num_requests: int, key: str | None = None) -> list[float]:
    one = HealthProbe(url, key)
    async with one, asyncio.timeout(10):
        while len(asked) < num_requests:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
    return one.latencies_s


async def test_health_is_asked_beside_the_api_again_and_again() -> None:
    async with answering(lambda index: OK) as (url, asked):
        latencies_s = await probe(url, asked, 3, key="k")
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert b"authorization: bearer k" in asked[0].lower()
    assert len(latencies_s) >= 3


async def test_server_without_health_is_asked_once() -> None:
    async with answering(lambda index: MISSING) as (url, asked):
        assert await probe(url, asked, 1) == []
    assert len(asked) == 1


async def test_answer_that_fails_later_counts_as_the_longest() -> None:
    async with answering(lambda index: OK if index == 0 else MISSING) as (url, asked):
        latencies_s = await probe(url, asked, 2)
    assert latencies_s[0] < TIMEOUT_S
    assert set(latencies_s[1:]) == {TIMEOUT_S}


async def test_missing_server_is_no_error() -> None:
    assert await probe("http://127.0.0.1:1/v1", [b""], 1) == []
