"""A server whose conversations nobody uses never loads what they need: neither at its start nor while it serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, sys
from pathlib import Path
import httpx
from contracts.settings import Settings
from service.app import create_app
from tests.fakes import FakeEngine, say, write_byte_model

async def main() -> None:
    engine = FakeEngine(write_byte_model(Path(sys.argv[1])), say("Hello."))
    app = create_app(Settings(), engine)
    async with app.lifespan(), httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        for stream in (False, True):
            (await client.post("/v1/chat/completions", json=body | {"stream": stream})).raise_for_status()
        for path in ("/health", "/v1/models", "/", "/openapi.json"):
            (await client.get(path)).raise_for_status()

asyncio.run(main())
print("loaded:", sorted(set(sys.modules) & {"sqlalchemy", "alembic", "aiosqlite", "asyncpg"}))
"""


def test_requests_without_a_conversation_load_no_database(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "XDG_DATA_HOME": str(tmp_path / "data"),
        },
    )
    assert "loaded: []" in done.stdout
    assert not (tmp_path / "data").exists()
