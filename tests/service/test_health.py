"""The health routes tell the truth at every moment, also while the model loads and while an engine is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from contracts.engine import Engine, EngineInfo
from contracts.errors import ModelNotUsable, StartupError
from contracts.settings import EngineSettings, Settings
from service.app import build_app
from service.engine_provider import EngineProvider, OnProgress, StartEngine, StartupHooks
from tests.fakes import FakeEngine, say

CHAT_BODY = {"messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def client_of(provider: EngineProvider) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(Settings(), provider)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def start_when(is_wanted: asyncio.Event, engine: Engine) -> StartEngine:
    async def start(settings: EngineSettings, on_progress: OnProgress) -> Engine:
        await is_wanted.wait()
        return engine

    return start


async def fail_to_start(settings: EngineSettings, on_progress: OnProgress) -> Engine:
    raise ModelNotUsable("There is no model in /secret/path.")


async def test_health_says_what_runs(client: httpx.AsyncClient) -> None:
    reply = await client.get("/health")
    assert reply.status_code == 200
    expected_part = {
        "status": "healthy",
        "model": "fake/model",
        "running": 0,
        "waiting": 0,
        "free_blocks": 1024,
        "num_blocks": 1024,
        "num_steps": 0,
        "mean_batch_size": None,
        "is_draining": False,
        "models": {"fake/model": "ready"},
    }
    told = reply.json()
    assert {name: told[name] for name in expected_part} == expected_part


@pytest.mark.usefixtures("canary")
async def test_health_answers_while_a_request_runs(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json()["running"] == 1


async def test_dead_engine_is_503(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.is_alive = False
    reply = await client.get("/health")
    assert (reply.status_code, reply.json()["status"]) == (503, "dead")


async def statuses_of(client: httpx.AsyncClient) -> dict[str, tuple[int, str]]:
    """(HTTP status, word) of every probe."""
    paths = ("/health", "/health/live", "/healthz", "/health/ready", "/readyz")
    replies = {path: await client.get(path) for path in paths}
    return {path: (reply.status_code, reply.json()["status"]) for path, reply in replies.items()}


def expected(word: str, *, health: int, live: int, ready: int) -> dict[str, tuple[int, str]]:
    codes = {"/health/live": live, "/healthz": live, "/health/ready": ready, "/readyz": ready}
    own = {"/health": (health, "healthy" if word == "ok" else word)}
    return own | {path: (code, word) for path, code in codes.items()}


async def test_probes_of_a_server_that_serves(client: httpx.AsyncClient) -> None:
    assert await statuses_of(client) == expected("ok", health=200, live=200, ready=200)


async def test_engine_that_runs_out_of_memory_three_times_in_a_row_is_not_ready(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """R17."""
    engine.num_consecutive_oom = 2
    assert await statuses_of(client) == expected("ok", health=200, live=200, ready=200)
    engine.num_consecutive_oom = 3
    assert await statuses_of(client) == expected("ok", health=200, live=200, ready=503)


async def test_engine_that_is_being_replaced_takes_readiness_but_not_liveness(engine: FakeEngine) -> None:
    is_wanted = asyncio.Event()
    is_wanted.set()
    provider = EngineProvider(Settings(), start_when(is_wanted, engine), StartupHooks(), is_supervised=True)
    async with client_of(provider) as client:
        await provider.wait_until_loaded()
        engine.is_alive = False
        lost = await statuses_of(client)
        engine.is_alive = True
        found = await statuses_of(client)
    assert lost == expected("restarting", health=200, live=200, ready=503)
    assert found == expected("ok", health=200, live=200, ready=200)


async def test_draining_takes_readiness_while_requests_are_still_taken(engine: FakeEngine) -> None:
    is_wanted = asyncio.Event()
    is_wanted.set()
    provider = EngineProvider(Settings(), start_when(is_wanted, engine), StartupHooks())
    async with client_of(provider) as client:
        await provider.wait_until_loaded()
        provider.begin_drain()
        assert await statuses_of(client) == expected("draining", health=200, live=200, ready=503)
        assert (await client.post("/v1/chat/completions", json=CHAT_BODY)).status_code == 200
        assert engine.drains == []


async def test_dead_engine_without_a_supervisor_fails_every_probe(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.is_alive = False
    assert await statuses_of(client) == expected("dead", health=503, live=503, ready=503)


async def test_probes_while_the_model_loads(engine: FakeEngine) -> None:
    provider = EngineProvider(Settings(), start_when(asyncio.Event(), engine), StartupHooks())
    async with client_of(provider) as client:
        assert await statuses_of(client) == expected("starting", health=200, live=200, ready=503)
        assert (await client.get("/stats")).json()["error"]["code"] == "starting"


async def test_stats_are_the_engines_own(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post("/v1/chat/completions", json=CHAT_BODY)
    reply = await client.get("/stats")
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json()["engine"] == msgspec.to_builtins(engine.stats())
    assert reply.json()["engine"]["num_requests"] == 1
    assert reply.json()["info"]["num_blocks"] == engine.info.num_blocks


async def test_server_answers_while_the_model_loads(engine: FakeEngine) -> None:
    is_wanted = asyncio.Event()
    ready: list[EngineInfo] = []
    provider = EngineProvider(Settings(), start_when(is_wanted, engine), StartupHooks(on_ready=ready.append))
    async with client_of(provider) as client:
        health = await client.get("/health")
        refused = await client.post("/v1/chat/completions", json=CHAT_BODY)
        is_wanted.set()
        await provider.wait_until_loaded()
        served = await client.post("/v1/chat/completions", json=CHAT_BODY)
    assert (health.status_code, health.json()["status"]) == (200, "starting")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starting")
    assert refused.headers["retry-after"] == "2"
    assert served.status_code == 200
    assert ready == [engine.info]


async def test_model_that_cannot_be_loaded_is_dead_and_reported_once() -> None:
    failures: list[StartupError] = []
    provider = EngineProvider(Settings(), fail_to_start, StartupHooks(on_failure=failures.append))
    async with client_of(provider) as client:
        await provider.wait_until_loaded()
        health = await client.get("/health")
        refused = await client.post("/v1/chat/completions", json=CHAT_BODY)
    assert (health.status_code, health.json()["status"]) == (503, "dead")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_dead")
    assert "secret" not in refused.text
    assert [type(failure) for failure in failures] == [ModelNotUsable]


async def test_missing_tokenizer_is_a_startup_failure(tmp_path: Path) -> None:
    failures: list[StartupError] = []
    engine = FakeEngine(tmp_path, say("a"))
    is_wanted = asyncio.Event()
    is_wanted.set()
    provider = EngineProvider(Settings(), start_when(is_wanted, engine), StartupHooks(on_failure=failures.append))
    async with provider.run():
        await provider.wait_until_loaded()
    assert [type(failure) for failure in failures] == [ModelNotUsable]
    assert len(engine.drains) == 1


async def test_engine_is_drained_at_the_end(engine: FakeEngine) -> None:
    is_wanted = asyncio.Event()
    is_wanted.set()
    provider = EngineProvider(Settings(), start_when(is_wanted, engine), StartupHooks())
    async with provider.run():
        await provider.wait_until_loaded()
        assert engine.drains == []
    assert len(engine.drains) == 1
