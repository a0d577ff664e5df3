"""Many clients of a real `quire serve` share one continuous batch, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from tests.system.quire_process import running_quire, write_tiny_model

NUM_CLIENTS = 64
MAX_TOKENS = 96


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the tiny random model on a free port."""
    directory = tmp_path_factory.mktemp("concurrent")
    model = write_tiny_model(directory / "model")
    arguments = ["serve", str(model), "--port", "0", "--kv-cache-memory", "16MiB", "--dtype", "float32"]
    with running_quire(directory, *arguments) as quire:
        quire.wait_for("Quire is ready")
        yield quire.address


def _health(address: str) -> dict[str, Any]:
    health: dict[str, Any] = httpx.get(f"{address}/health").json()
    return health


async def _health_at_rest(address: str, num_free_blocks: int) -> dict[str, Any]:
    """What /health says once nothing runs or waits and so many blocks are free: its numbers may be a moment old."""
    async with asyncio.timeout(10):
        while True:
            health = _health(address)
            if (health["running"], health["waiting"], health["free_blocks"]) == (0, 0, num_free_blocks):
                return health
            await asyncio.sleep(0.02)


async def _stream(client: AsyncOpenAI, index: int) -> int:
    """Tokens that one streaming client was billed for."""
    stream = await client.completions.create(
        model="model",
        prompt=[index + 1, *range(10, 30)],
        max_tokens=MAX_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    usages = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]
    return sum(usages)


async def test_64_clients_merge_into_one_batch(address: str) -> None:
    """All complete in full, the mean batch is above 32, and every block is free again."""
    before = _health(address)
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        tokens = await asyncio.gather(*(_stream(client, index) for index in range(NUM_CLIENTS)))
    after = await _health_at_rest(address, before["free_blocks"])
    num_steps = after["num_steps"] - before["num_steps"]
    num_rows = after["mean_batch_size"] * after["num_steps"] - (before["mean_batch_size"] or 0) * before["num_steps"]
    assert tokens == [MAX_TOKENS] * NUM_CLIENTS
    assert num_rows / num_steps > NUM_CLIENTS / 2


async def test_clients_that_leave_free_their_blocks(address: str) -> None:
    """Streams that are closed after their first event are gone from the engine at once."""
    before = _health(address)
    body = {"prompt": [5, 6, 7], "max_tokens": 150, "stream": True, "ignore_eos": True}

    async def leave_early(client: httpx.AsyncClient) -> int:
        async with client.stream("POST", f"{address}/v1/completions", json=body) as reply:
            await anext(reply.aiter_raw())
            return reply.status_code

    async with httpx.AsyncClient(timeout=30) as client:
        statuses = await asyncio.gather(*(leave_early(client) for _ in range(NUM_CLIENTS)))
    assert statuses == [200] * NUM_CLIENTS
    await _health_at_rest(address, before["free_blocks"])
