"""The application over a fake engine, in process and behind a real granian."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.settings import Settings
from service.app import create_app
from service.engine_provider import EngineProvider
from tests.fakes import FakeEngine, say, write_byte_model
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server

CANARY_TEXT = "The canary sings: tweet."


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine(model_path: Path) -> FakeEngine:
    return FakeEngine(model_path, say("Hello."))


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def client(engine: FakeEngine, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Requests straight into the application, in this event loop; a stream arrives as one piece."""
    app = create_app(settings, engine)
    provider: EngineProvider = app.state.provider
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await provider.wait_until_loaded()
        yield client


@pytest.fixture
async def canary(client: httpx.AsyncClient, engine: FakeEngine) -> AsyncIterator[None]:
    """A request that is under way during the test and must come out unchanged, the only one the engine ever saw."""
    engine.script = say(CANARY_TEXT)
    engine.gate.clear()
    body = {"messages": [{"role": "user", "content": "sing"}]}
    request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    await engine.has_started.wait()
    yield
    engine.gate.set()
    reply: Any = (await request).json()
    assert reply["choices"][0]["message"]["content"] == CANARY_TEXT
    assert len(engine.requests) == 1
    assert engine.stats().num_running == 0


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[[FakeServerOptions], FakeServer]]:
    """Starts a real server process once for each set of options; all end with the session."""
    servers: dict[FakeServerOptions, FakeServer] = {}
    with ExitStack() as stack:

        def start(options: FakeServerOptions) -> FakeServer:
            if options not in servers:
                servers[options] = stack.enter_context(running_server(options))
            return servers[options]

        yield start
