"""GET /v1/live: what a caller may see, what is refused, and that a real stream comes and ends."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from contracts.engine import EngineInfo
from contracts.live import LiveView, RunningLook, WaitingLook
from contracts.settings import ServerSettings
from service.authorization import needed_scope
from service.live_feed import LiveLook
from service.routes.live import view_of
from tests.fakes import FakeEngine, empty_look
from tests.system.fake_server import FakeServer, FakeServerOptions

RUNNING = RunningLook(7, "chatcmpl-a", 0, "ann", True, 20, 16, 22, 3, 100, 2, 0, 1.23456)
WAITING = WaitingLook(8, "chatcmpl-b", 1, "bob", 30, True, 0.5)


@pytest.fixture
def look(engine: FakeEngine) -> LiveLook:
    sight = msgspec.structs.replace(empty_look(), running=[RUNNING], waiting=[WAITING], num_waiting=1)
    return LiveLook(look=sight, info=engine.info, runs=[3, 2, 0, 6], shared=[0, 2], period_s=0.25)


@pytest.mark.parametrize(
    ("tenant", "running", "waiting"),
    [
        (None, ("chatcmpl-a", "ann"), ("chatcmpl-b", "bob")),
        ("ann", ("chatcmpl-a", "ann"), (None, None)),
        ("bob", (None, None), ("chatcmpl-b", "bob")),
        ("eve", (None, None), (None, None)),
    ],
)
def test_requests_of_other_keys_have_no_names(
    look: LiveLook, tenant: str | None, running: tuple[Any, Any], waiting: tuple[Any, Any]
) -> None:
    view = view_of(look, "m", tenant)
    assert (view.running[0].request, view.running[0].key) == running
    assert (view.waiting[0].request, view.waiting[0].key) == waiting
    assert (view.running[0].seq, view.running[0].phase, view.running[0].num_blocks) == (7, "decode", 2)


def test_view_says_what_the_engine_is(look: LiveLook) -> None:
    info: EngineInfo = look.info
    view = view_of(look, "m", None)
    assert (view.model, view.block_size, view.max_num_seqs) == ("m", info.block_size, info.max_num_seqs)
    assert (view.runs, view.shared, view.num_blocks, view.num_waiting) == ([3, 2, 0, 6], [0, 2], 8, 1)


@pytest.mark.parametrize("path", ["/v1/live", "//v1//live/", "/v1/live/x"])
def test_scope_is_that_of_the_stats(path: str) -> None:
    assert needed_scope(path) == "metrics"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("?every=1", 400, "invalid_value"), ("?model=nobody", 404, "model_not_found")],
)
async def test_bad_query_is_refused(client: httpx.AsyncClient, query: str, status: int, code: str) -> None:
    reply = await client.get(f"/v1/live{query}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


async def test_events_come_for_as_long_as_somebody_reads(start_server: Any) -> None:
    server: FakeServer = start_server(FakeServerOptions())
    lines = []
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
        client.stream("GET", "/v1/live", params={"model": "fake/model"}) as reply,
    ):
        assert reply.headers["content-type"].startswith("text/event-stream")
        async for line in reply.aiter_lines():
            lines.append(line)
            if len(lines) == 6:
                break
    views = [msgspec.json.decode(line[6:], type=LiveView) for line in lines if line.startswith("data: ")]
    assert len(views) == 3
    assert {view.model for view in views} == {"fake/model"}


async def test_nobody_watches_without_a_key(start_server: Any) -> None:
    server: FakeServer = start_server(FakeServerOptions(server=ServerSettings(api_keys="k-0123456789abcdef")))
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        reply = await client.get("/v1/live")
    assert reply.status_code == 401
