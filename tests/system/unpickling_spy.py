"""Serves one chat in this process and prints, as JSON, who imported or called what can run code from data (S35).

`python -m tests.system.unpickling_spy fake|real`: the application over a fake engine, or with the embedded model.
"""

from __future__ import annotations

import builtins
import json
import pickle
import sys
from types import ModuleType
from typing import Any

FORBIDDEN = {"pickle", "_pickle", "marshal", "dill", "shelve", "cloudpickle", "joblib", "yaml"}

importers: set[tuple[str, str]] = set()
callers: set[tuple[str, str]] = set()
_import = builtins.__import__


def spying_import(name: str, *place: Any, **named_place: Any) -> ModuleType:
    """Stands for `__import__`; the first of `place` are the globals of whoever imports."""
    if name.partition(".")[0] in FORBIDDEN:
        importer = place[0] if place else named_place.get("globals")
        importers.add(((importer or {}).get("__name__", "?"), name))
    return _import(name, *place, **named_place)


def note_caller(name: str) -> None:
    """Remember the module that called the function that called this."""
    callers.add((sys._getframe(2).f_globals.get("__name__", "?"), name))


def spy_on(module: ModuleType, name: str) -> None:
    function = getattr(module, name)

    def spied(*args: Any, **kwargs: Any) -> Any:
        note_caller(f"{module.__name__}.{name}")
        return function(*args, **kwargs)

    setattr(module, name, spied)


class SpiedUnpickler(pickle.Unpickler):
    """Says who makes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        note_caller("pickle.Unpickler")
        super().__init__(*args, **kwargs)


async def serve_one_chat(kind: str) -> int:
    """The status of one chat."""
    import tempfile
    from pathlib import Path

    import httpx

    from contracts.settings import EngineSettings, Settings
    from service.app import create_app
    from service.engine_provider import EngineProvider
    from tests.fakes import FakeEngine, say, write_byte_model

    with tempfile.TemporaryDirectory() as directory:
        engine = FakeEngine(write_byte_model(Path(directory)), say("Hello.")) if kind == "fake" else None
        settings = Settings(engine=EngineSettings(kv_cache_memory="64MiB", num_threads=1, device="cpu"))
        app = create_app(settings, engine)
        provider: EngineProvider = app.state.provider
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
        async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await provider.wait_until_loaded()
            body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": True}
            return (await client.post("/v1/chat/completions", json=body)).status_code


def main() -> None:
    import asyncio

    spy_on(pickle, "loads")
    spy_on(pickle, "load")
    pickle.Unpickler = SpiedUnpickler  # type: ignore[misc]
    builtins.__import__ = spying_import
    if sys.argv[1] == "real":
        import torch

        spy_on(torch, "load")
    status = asyncio.run(serve_one_chat(sys.argv[1]))
    report = {"status": status, "importers": sorted(importers), "callers": sorted(callers)}
    sys.stdout.write("\n" + json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
