"""While the engine has no room, requests are refused unread; soon after, the engine is asked again."""

from __future__ import annotations

import httpx
import pytest

from contracts.errors import NoRoom, QueueFull
from service.overload_gate import HOLD_S, OverloadGate
from tests.fakes import FakeEngine

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
NO_ROOM = NoRoom("The queue is full: 5 of 5.", retry_after_s=3.2)


class Clock:
    """Moved by the test."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_gate_repeats_the_refusal_for_its_time_and_opens_by_itself() -> None:
    clock = Clock()
    gate = OverloadGate(clock)
    gate.check()
    gate.shut(NO_ROOM)
    clock.now_s += HOLD_S * 0.99
    with pytest.raises(NoRoom) as refusal:
        gate.check()
    assert (refusal.value.message, refusal.value.retry_after_s) == (NO_ROOM.message, 3.2)
    clock.now_s += HOLD_S * 0.02
    gate.check()
    assert gate.num_refused == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_requests_are_refused_unread_while_there_is_no_room(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("service.overload_gate.HOLD_S", 3600.0)
    engine.refusal = NO_ROOM
    asked = await client.post("/v1/completions", json={"prompt": "hello"})
    unread = await client.post(path, content=b"not even JSON")
    assert [asked.status_code, unread.status_code] == [503, 503]
    assert asked.json() == unread.json()
    assert unread.json()["error"]["code"] == "queue_full"
    assert (unread.headers["retry-after"], unread.headers["x-should-retry"]) == ("4", "true")
    assert unread.headers["x-request-id"]
    assert (await client.get("/stats")).json()["num_refused_unread"] == 1
    for other in ("/health", "/v1/models", "/readyz"):
        assert (await client.get(other)).status_code == 200


async def test_engine_is_asked_again_soon(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.refusal = NO_ROOM
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503
    engine.refusal = None
    while (reply := await client.post("/v1/chat/completions", json=CHAT)).status_code == 503:
        pass
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("refusal", "prompt"),
    [(QueueFull("Too long for the room that is left."), "a"), (NO_ROOM, ["a", "b"])],
    ids=["room for smaller ones", "its own prompts took the room"],
)
async def test_refusal_of_a_large_request_says_nothing_about_others(
    client: httpx.AsyncClient, engine: FakeEngine, refusal: QueueFull, prompt: str | list[str]
) -> None:
    engine.refusal = refusal
    assert (await client.post("/v1/completions", json={"prompt": prompt})).status_code == 503
    engine.refusal = None
    assert (await client.post("/v1/completions", json={"prompt": "a"})).status_code == 200
    assert (await client.get("/stats")).json()["num_refused_unread"] == 0
