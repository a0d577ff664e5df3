"""Prefix blocks of a real engine are shared under one key and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.engine_provider import EngineProvider
from tests.batching.real_engine import engine_settings
from tests.system.quire_process import write_tiny_model

KEYS = {"a": "sk-of-a-0123456789", "b": "sk-of-b-0123456789"}
PROMPT = "A prompt of several blocks, which nobody else shall find. " * 2


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("isolation") / "tiny")


async def clients_of(model_path: Path, server: ServerSettings) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(engine=engine_settings(model_path, max_model_len=None), server=server)
    app = create_app(settings)
    provider: EngineProvider = app.state.provider
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await provider.wait_until_loaded()
        yield client


@pytest.fixture
async def keyed(model_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    keys = ",".join(f"{label}={key}" for label, key in KEYS.items())
    async for client in clients_of(model_path, ServerSettings(api_keys=keys)):
        yield client


@pytest.fixture
async def open_to_all(model_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async for client in clients_of(model_path, ServerSettings()):
        yield client


async def num_cached(client: httpx.AsyncClient, label: str) -> int:
    body = {"prompt": PROMPT, "max_tokens": 1}
    headers = {"authorization": f"Bearer {KEYS[label]}"}
    reply = await client.post("/v1/completions", json=body, headers=headers, timeout=60)
    cached: int = reply.raise_for_status().json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached


async def test_another_key_finds_nothing_of_a_prompt(keyed: httpx.AsyncClient) -> None:
    found = [await num_cached(keyed, label) for label in ("a", "b", "a", "b")]
    assert found[:2] == [0, 0]
    assert found[2] == found[3] >= len(PROMPT) // 2


async def test_without_keys_the_prompt_is_shared(open_to_all: httpx.AsyncClient) -> None:
    assert [await num_cached(open_to_all, label) > 0 for label in ("a", "b")] == [False, True]
