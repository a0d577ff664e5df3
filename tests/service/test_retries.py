"""R9: the official client retries what will work later, when it was told to, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from contracts.engine import DeltaStream
from contracts.errors import EngineError, InvalidValue, QueueFull, QuireError, RateLimited
from contracts.generation import GenerationRequest
from contracts.settings import Settings
from service.app import create_app
from service.engine_provider import EngineProvider
from tests.fakes import FakeEngine, say

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
CAPACITY = 10


class CrowdedEngine(FakeEngine):
    """Takes CAPACITY requests at once and tells the others when to come back; counts every attempt."""

    overload: type[QuireError] = QueueFull
    num_attempts = 0

    async def submit(self, request: GenerationRequest) -> DeltaStream:
        self.num_attempts += 1
        if self.stats().num_running >= CAPACITY:
            raise self.overload("The queue is full.", retry_after_s=0.1)
        return await super().submit(request)


@pytest.fixture
def engine(engine: FakeEngine) -> CrowdedEngine:
    return CrowdedEngine(engine.info.model_path, say("Hello."), interval_s=0.005)  # type: ignore[arg-type]


@pytest.fixture
async def client(engine: CrowdedEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client as its makers ship it: two retries."""
    app = create_app(Settings(), engine)
    provider: EngineProvider = app.state.provider
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport) as http_client:
        await provider.wait_until_loaded()
        http: Any = http_client  # later clients name a type of their own for the same thing
        yield openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="any", http_client=http)


@pytest.mark.parametrize("overload", [QueueFull, RateLimited])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_crowd_is_served_with_one_and_a_half_attempts_each(
    client: openai.AsyncOpenAI, engine: CrowdedEngine, overload: type[QuireError], is_stream: bool
) -> None:
    engine.overload = overload

    async def ask() -> None:
        reply = await client.chat.completions.create(model="fake/model", messages=MESSAGES, stream=is_stream)
        if isinstance(reply, openai.AsyncStream):
            assert [chunk async for chunk in reply]

    started_s = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(2 * CAPACITY)))
    assert len(engine.requests) == 2 * CAPACITY
    assert engine.num_attempts <= 1.5 * 2 * CAPACITY
    assert time.monotonic() - started_s >= 1.0, "the client came back before it was told to"


@pytest.mark.parametrize(
    ("error", "status"), [(EngineError("this request fails whenever it is sent"), 500), (InvalidValue("bad"), 400)]
)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_what_fails_whenever_it_is_sent_is_sent_once(
    client: openai.AsyncOpenAI, engine: CrowdedEngine, error: QuireError, status: int, is_stream: bool
) -> None:
    engine.refusal = error
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="fake/model", messages=MESSAGES, stream=is_stream)
    assert (caught.value.status_code, engine.num_attempts) == (status, 1)
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_request_that_breaks_in_the_engine_is_generated_once(
    client: openai.AsyncOpenAI, engine: CrowdedEngine
) -> None:
    engine.fail_after = 1
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="fake/model", messages=MESSAGES)
    assert engine.num_attempts == 1


async def test_long_overload_ends_after_two_retries(client: openai.AsyncOpenAI, engine: CrowdedEngine) -> None:
    engine.refusal = QueueFull("The queue is full.", retry_after_s=0.1)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="fake/model", messages=MESSAGES)
    assert caught.value.status_code == 503
    assert engine.num_attempts == 3
