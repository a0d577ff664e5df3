"""A real server's last requests are traces that Jaeger's page and Grafana can open, with no collector anywhere.

What is asserted restates what the views need: parents that exist, phases that do not touch (the critical path passes
over those that do), the token counts of the GenAI view, ids that stay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import groupby, pairwise
from typing import Any

import httpx
import pytest

from tests.system.conftest import running_paced
from tests.system.quire_process import QuireProcess
from tests.system.stream_client import FOREVER, StreamClient, is_idle, until_stats

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PHASES = {"queue", "prefill", "decode", "preempted"}
WITHIN_S = 15.0


@pytest.fixture(scope="module")
def quire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    with running_paced(tmp_path_factory.mktemp("q")) as quire:
        yield quire


@pytest.fixture
async def client(quire: QuireProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=quire.address) as client:
        yield client


async def complete(client: httpx.AsyncClient, request_id: str, **changes: Any) -> dict[str, Any]:
    """Send a completion under the x-request-id, and return its reply."""
    body = {"prompt": [1, 2, 3], "max_tokens": 8, "ignore_eos": True} | changes
    reply = await client.post("/v1/completions", json=body, headers={"x-request-id": request_id})
    assert reply.status_code == 200
    found: dict[str, Any] = reply.json()
    return found


async def trace_of(client: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    """The only trace that a search by the x-request-id finds."""
    tags = f'{{"quire.request_id":"{request_id}"}}'
    (trace,) = (await client.get("/api/traces", params={"service": "quire", "tags": tags})).json()["data"]
    return dict(trace)


def tags_of(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def end_us(span: dict[str, Any]) -> int:
    return int(span["startTime"] + span["duration"])


def check_tree(trace: dict[str, Any]) -> None:
    """What every view relies on."""
    spans = {span["spanID"]: span for span in trace["spans"]}
    assert len(spans) == len(trace["spans"])
    assert {span["traceID"] for span in trace["spans"]} == {trace["traceID"]}
    assert {span["processID"] for span in trace["spans"]} <= trace["processes"].keys()
    phases = [span for span in trace["spans"] if span["references"]]
    assert {span["operationName"] for span in phases} <= PHASES
    for phase in phases:
        parent = spans[phase["references"][0]["spanID"]]
        assert parent["startTime"] <= phase["startTime"]
        assert end_us(phase) < end_us(parent)
    samples = groupby(phases, key=lambda span: (span["references"][0]["spanID"], tags_of(span)["quire.sample"]))
    for _, of_sample in samples:
        assert all(end_us(earlier) < later["startTime"] for earlier, later in pairwise(of_sample))


async def test_request_is_one_trace_with_what_the_views_need(client: httpx.AsyncClient) -> None:
    reply = await complete(client, "seen-1")
    trace = await trace_of(client, "seen-1")
    check_tree(trace)
    request, *phases = trace["spans"]
    assert request["operationName"] == "text_completion model"
    assert [phase["operationName"] for phase in phases][-2:] == ["prefill", "decode"]
    tags = tags_of(request)
    expected = {
        "span.kind": "server",
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "quire",
        "gen_ai.request.model": "model",
        "gen_ai.response.id": reply["id"],
        "gen_ai.response.finish_reasons": '["length"]',
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert {name: tags.get(name) for name in expected} == expected
    assert 0 < tags["gen_ai.response.time_to_first_chunk"] < WITHIN_S
    assert abs(request["startTime"] / 1e6 - time.time()) < 60


async def test_calls_of_a_caller_are_its_trace(client: httpx.AsyncClient) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    body = {"prompt": ["ab", "cd"], "n": 2, "max_tokens": 3, "ignore_eos": True}
    for _ in range(2):
        assert (await client.post("/v1/completions", json=body, headers=headers)).status_code == 200
    (trace,) = (await client.get(f"/api/traces/{TRACE_ID}")).json()["data"]
    check_tree(trace)
    requests = [span for span in trace["spans"] if not span["references"]]
    assert [tags_of(request)["gen_ai.usage.output_tokens"] for request in requests] == [12, 12]
    assert [tags_of(request)["gen_ai.request.choice.count"] for request in requests] == [4, 4]
    assert (await client.get(f"/api/traces/{TRACE_ID}")).json()["data"][0]["spans"] != []


async def test_both_apis_show_the_same_spans_at_every_look(client: httpx.AsyncClient) -> None:
    await complete(client, "seen-2")
    trace = await trace_of(client, "seen-2")
    ids = {span["spanID"] for span in trace["spans"]}
    (again,) = (await client.get(f"/api/traces/{trace['traceID']}")).json()["data"]
    assert {span["spanID"] for span in again["spans"]} == ids
    result = (await client.get(f"/api/v3/traces/{trace['traceID']}")).json()["result"]
    spans = result["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert {span["spanId"] for span in spans} == ids
    assert {span.get("parentSpanId") for span in spans} - {None} <= ids
    window = {"query.startTimeMin": "2020-01-01T00:00:00.000Z", "query.startTimeMax": "2100-01-01T00:00:00.000Z"}
    query = {
        "query.serviceName": "quire",
        "query.searchDepth": "20",
        "query.attributes": '{"quire.request_id":"seen-2"}',
    }
    (line,) = (await client.get("/api/v3/trace-summaries", params=query | window)).json()["summaries"]
    assert (line["traceId"], line["spanCount"], line["orphanSpanCount"]) == (trace["traceID"], len(ids), 0)


async def test_running_request_is_seen_and_keeps_its_ids(quire: QuireProcess, client: httpx.AsyncClient) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": FOREVER, "stream": True, "ignore_eos": True}
    async with client.stream("POST", "/v1/completions", json=body, headers={"x-request-id": "seen-3"}) as reply:
        lines = reply.aiter_lines()
        for _ in range(10):
            await anext(lines)
        running = await trace_of(client, "seen-3")
    await until_stats(quire.address, is_idle)
    check_tree(running)
    assert tags_of(running["spans"][0])["quire.status"] == "running"
    ended = await trace_of(client, "seen-3")
    assert tags_of(ended["spans"][0])["quire.status"] == "cancelled"
    assert {span["spanID"] for span in running["spans"]} <= {span["spanID"] for span in ended["spans"]}


@pytest.mark.slow
async def test_many_requests_are_many_traces_of_few_spans(quire: QuireProcess, client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(StreamClient(quire.address, max_tokens=3).run() for _ in range(150)))
    lines = (await client.get("/api/v3/trace-summaries?query.searchDepth=1500")).json()["summaries"]
    assert len(lines) >= 150
    assert len({line["traceId"] for line in lines}) == len(lines)
    assert max(line["spanCount"] for line in lines) < 50
    starts = [int(line["minStartTimeUnixNano"]) for line in lines]
    assert starts == sorted(starts, reverse=True)


async def test_no_text_is_shown(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "canary-7f3a"}], "max_tokens": 4, "user": "canary-7f3a"}
    await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "seen-4"})
    trace = await trace_of(client, "seen-4")
    assert trace["spans"][0]["operationName"] == "chat model"
    for path in ("traces", f"traces/{trace['traceID']}", "v3/traces", "v3/trace-summaries"):
        assert "canary-7f3a" not in (await client.get(f"/api/{path}")).text
