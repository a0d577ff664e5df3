"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

import httpx
import pytest

CARD = {
    "id": "fake/model",
    "object": "model",
    "owned_by": "quire",
    "root": "fake/model",
    "state": "ready",
    "is_default": True,
    "display_name": "fake/model",
    "description": "",
    "family": "",
    "kind": "chat",
    "progress": None,
    "error": None,
    "memory_bytes": None,
    "load_s": None,
    "max_model_len": 4096,
    "architecture": "FakeForCausalLM",
    "dtype": "float32",
    "num_parameters": 1000,
    "sampling_defaults": {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    },
}


async def test_list_holds_the_served_model(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert body["data"][0].pop("created") > 1_700_000_000
    assert body == {"object": "list", "data": [CARD]}


@pytest.mark.parametrize("path", ["fake/model", "fake%2Fmodel", "fake/model/"])
async def test_id_with_a_slash_is_found_plain_and_escaped(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"/v1/models/{path}")).json()["id"] == "fake/model"


@pytest.mark.parametrize(
    "path",
    ["other", "fake", "fake/model/x", "..%2F..%2Fetc%2Fpasswd", "%00", "x" * 300, "%2e%2e/%2e%2e", "fake%5Cmodel"],
)
async def test_unknown_id_is_model_not_found(client: httpx.AsyncClient, path: str) -> None:
    """S43; with a spy on opened files: test_no_leaks."""
    reply = await client.get(f"/v1/models/{path}")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"
    assert len(reply.content) < 1000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_generation_for_an_unknown_model_is_model_not_found(client: httpx.AsyncClient, path: str) -> None:
    body = {"model": "gpt-5", "prompt": "a", "messages": [{"role": "user", "content": "a"}]}
    del body["messages" if path == "/v1/completions" else "prompt"]
    reply = await client.post(path, json=body)
    assert reply.status_code == 404
    assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == ("model_not_found", "model")
