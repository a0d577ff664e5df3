"""The application with its conversations in a file of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.conversations.access import Conversations
from service.engine_provider import EngineProvider
from tests.fakes import FakeEngine


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "conversations.db"


@pytest.fixture
def settings(database_path: Path) -> Settings:
    return Settings(server=ServerSettings(conversations_db=str(database_path)))


@pytest.fixture
async def client(engine: FakeEngine, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """As elsewhere, and the database is closed at the end."""
    app = create_app(settings, engine)
    provider: EngineProvider = app.state.provider
    conversations: Conversations = app.state.conversations
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await provider.wait_until_loaded()
        yield client
        await conversations.close()
