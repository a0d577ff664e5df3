"""Dialects can be left out one by one; their defaults, scopes and owners are what the documents say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.errors import SettingsError
from contracts.sampling import SamplingParams
from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.authorization import needed_scope
from service.compat.dialects import MODULES, read_dialects
from service.engine_provider import EngineProvider
from tests.fakes import FakeEngine

QUESTION = [{"role": "user", "content": "hi"}]
ROUTE_OF = {
    "picollm": "/metadata",
    "ruvon": "/queue",
    "fastapi_llm": "/stream-example",
    "gemma_stream": "/api/v1/chat/submit",
    "llm_serving": "/api/v1/model-info",
}

Start = Callable[[ServerSettings], Any]


@pytest.fixture
async def start(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[Start]:
    """Makes a client of an application with the settings."""
    async with AsyncExitStack() as stack:

        async def make(server: ServerSettings) -> httpx.AsyncClient:
            app = create_app(Settings(server=server), engine)
            provider: EngineProvider = app.state.provider
            await stack.enter_async_context(provider.run())
            await provider.wait_until_loaded()
            transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
            return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))

        yield make


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", tuple(MODULES)),
        ("none", ()),
        ("ruvon", ("ruvon",)),
        (" llm_serving , picollm ", ("picollm", "llm_serving")),
    ],
)
def test_list_of_dialects(text: str, names: tuple[str, ...]) -> None:
    assert read_dialects(text) == names


@pytest.mark.parametrize("text", ["ruvonn", "", "all,ruvon", "ruvon,none", ",", "x" * 10_000])
def test_unknown_dialect_is_an_error(text: str) -> None:
    with pytest.raises(SettingsError, match="--compat"):
        read_dialects(text)


@pytest.mark.parametrize("left_out", list(MODULES))
async def test_dialect_that_is_left_out_has_no_routes(start: Start, left_out: str) -> None:
    others = [name for name in MODULES if name != left_out]
    client = await start(ServerSettings(compat=",".join(others)))
    statuses = {name: (await client.get(path)).status_code for name, path in ROUTE_OF.items()}
    assert statuses[left_out] == 404
    assert {statuses[name] for name in others} <= {200, 405}
    assert ROUTE_OF[left_out] not in (await client.get("/openapi.json")).json()["paths"]


async def test_without_dialects_the_canonical_routes_are_there(start: Start) -> None:
    client = await start(ServerSettings(compat="none"))
    paths = ("/", "/health", "/stats", "/v1/models", "/docs", "/redoc", "/v1/presets")
    assert {(await client.get(path)).status_code for path in paths} == {200}
    assert (await client.post("/chat/completions", json={"messages": QUESTION})).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/chat/completions", {"messages": QUESTION}, (0.8, 50, 1.0, 512)),
        ("/chat/completions", {"messages": QUESTION, "top_k": 0, "temperature": 0}, (0.0, 0, 1.0, 512)),
        ("/chat/completions", {"messages": QUESTION, "preset": "creative"}, (1.1, 80, 0.95, 768)),
        ("/chat", {"messages": QUESTION}, (0.8, 8, 1.0, 80)),
        ("/completions", {"prompt": "a"}, (1.0, 0, 1.0, 20)),
        ("/completions", {"prompt": "a", "top_p": 0, "max_tokens": 5}, (1.0, 0, 1.0, 5)),
        ("/api/v1/generate", {"prompt": "a"}, (0.7, 50, 0.9, 100)),
        ("/api/v1/generate", {"prompt": "a", "do_sample": False}, (0.0, 50, 0.9, 100)),
        ("/v1/chat/completions", {"messages": QUESTION, "preset": "balanced", "top_k": 3}, (0.8, 3, 1.0, 512)),
    ],
)
async def test_defaults_of_routes(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    path: str,
    body: dict[str, Any],
    expected: tuple[float, int, float, int],
) -> None:
    assert (await client.post(path, json=body)).status_code == 200
    assert shown(engine.requests[-1].sampling) == expected


def shown(sampling: SamplingParams) -> tuple[float, int, float, int]:
    return sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_tokens


async def test_default_length_of_a_route_is_what_the_window_leaves(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    body = {"messages": [{"role": "user", "content": "a" * 3900}]}
    assert (await client.post("/chat/completions", json=body)).status_code == 200
    assert engine.requests[-1].sampling.max_tokens < 512


async def test_explicit_length_beyond_the_window_is_refused(client: httpx.AsyncClient) -> None:
    reply = await client.post("/chat/completions", json={"messages": QUESTION, "max_tokens": 5000})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/api/v1/chat/switch-model", "admin"),
        ("POST", "/api/v1/load-model", "admin"),
        ("GET", "/api/v1/load-model", "infer"),
        ("POST", "/api/v1/chat", "infer"),
        ("GET", "/api/v1/chat/models", "infer"),
        ("GET", "/api/v1/health", None),
        ("GET", "/queue", "metrics"),
        ("POST", "/chat/completions", "infer"),
    ],
)
def test_scopes(method: str, path: str, scope: str | None) -> None:
    assert needed_scope(path, method) == scope


async def test_client_ids_of_two_keys_do_not_meet(start: Start) -> None:
    client = await start(ServerSettings(api_keys="ann=" + "a" * 40 + ",bob=" + "b" * 40))
    body = {"prompt": "a", "client_id": "c"}
    assert (await client.post("/api/v1/chat/submit", json=body)).status_code == 401
    headers = {"authorization": "Bearer " + "b" * 40}
    reply = await client.post("/api/v1/chat/submit", json=body, headers=headers)
    assert (reply.status_code, reply.json()["detail"]) == (404, "Client 'c' not connected.")


@pytest.mark.parametrize("path", ["/chat", "/completion", "/api/v1/chat/submit", "/api/v1/generate", "/api/v1/chat"])
async def test_detached_requests_are_for_v1(client: httpx.AsyncClient, path: str) -> None:
    bodies = {
        "/chat": {"messages": QUESTION},
        "/api/v1/chat/submit": {"prompt": "a", "client_id": "c"},
        "/api/v1/generate": {"prompt": "a"},
        "/api/v1/chat": {"message": "a"},
    }
    headers = {"x-quire-detach": "keep"}
    reply = await client.post(path, headers=headers, json=bodies.get(path))
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, "x-quire-detach")
