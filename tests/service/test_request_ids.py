"""A caller's request id names log lines and replies only; the engine's ids are the server's own."""

from __future__ import annotations

import asyncio

import httpx

from tests.fakes import FakeEngine

BODY = {"prompt": "a"}
HEADERS = {"x-request-id": "the-same"}


async def test_engine_never_sees_the_callers_id(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post("/v1/completions", json=BODY, headers=HEADERS)
    assert [request.request_id for request in engine.requests if "the-same" in request.request_id] == []


async def test_same_id_at_the_same_time_and_again_is_served_each_time(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    at_once = [client.post("/v1/completions", json=BODY, headers=HEADERS) for _ in range(8)]
    replies = [*await asyncio.gather(*at_once), await client.post("/v1/completions", json=BODY, headers=HEADERS)]
    assert [reply.status_code for reply in replies] == [200] * 9
    assert {reply.headers["x-request-id"] for reply in replies} == {"the-same"}
    assert len({reply.json()["id"] for reply in replies}) == 9
    assert len({request.request_id for request in engine.requests}) == 9
