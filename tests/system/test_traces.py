"""Every request is one trace over OTLP: its phases, in the form that Jaeger's views need, and none of its text."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import running_paced
from tests.system.otlp_sink import OtlpSink, SinkSpan, running_grpc_sink, running_sink
from tests.system.quire_process import QuireProcess
from tests.system.stream_client import FOREVER, StreamClient, is_idle, until_stats

WITHIN_S = 15.0
PHASES = {"queue", "prefill", "decode", "preempted"}
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with running_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def traced(sink: OtlpSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """A server that sends its spans to the sink, soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with running_paced(
            tmp_path_factory.mktemp("q"), "--otlp-endpoint", sink.address, "--trace-steps", "4"
        ) as quire:
            yield quire


async def span_of(sink: OtlpSink, request_id: str) -> SinkSpan:
    """The server span of a request, once its phases are there as well."""
    deadline_s = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline_s:
        found = [span for span in sink.spans if span.attributes.get("quire.request_id") == request_id]
        if found and (found[0].is_error or PHASES & {child.name for child in sink.children_of(found[0])}):
            assert len(found) == 1
            return found[0]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no span of {request_id} among {[span.name for span in sink.spans]}")


def check_phases(sink: OtlpSink, span: SinkSpan) -> list[str]:
    """One trace; phases one after the other, a microsecond apart, inside the server span. Returns their names."""
    children = sink.children_of(span)
    assert {child.trace_id for child in children} == {span.trace_id}
    assert {child.service for child in children} == {"quire"}
    phases = [child for child in children if child.name in PHASES]
    for earlier, later in pairwise(phases):
        assert earlier.end_ns + 1000 <= later.start_ns + 1
    assert span.start_ns <= phases[0].start_ns
    return [phase.name for phase in phases]


async def test_stream_is_one_trace_with_its_phases(traced: QuireProcess, sink: OtlpSink) -> None:
    headers = {"x-request-id": "traced-1", "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    body = {"prompt": [1, 2, 3], "max_tokens": 8, "ignore_eos": True, "stream": True, "temperature": 0.5, "seed": 7}
    async with httpx.AsyncClient() as client:
        reply = await client.post(f"{traced.address}/v1/completions", json=body, headers=headers)
        received_ns = time.time_ns()
    assert reply.headers["x-trace-id"] == TRACE_ID
    span = await span_of(sink, "traced-1")
    assert (span.trace_id, span.parent_id, span.name) == (TRACE_ID, PARENT_ID, "POST /v1/completions")
    names = check_phases(sink, span)
    assert names[-2:] == ["prefill", "decode"]
    assert set(names) <= PHASES
    (sent,) = [child for child in sink.children_of(span) if child.name == "reply"]
    assert sent.end_ns <= span.end_ns <= received_ns + 10**9
    assert json.loads(reply.text.split("data: ")[-2])["trace_id"] == TRACE_ID
    expected = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "quire",
        "gen_ai.request.model": "fake/model",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.response.finish_reasons": ["length"],
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
    }
    assert {name: span.attributes.get(name) for name in expected} == expected
    assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] < WITHIN_S
    assert span.attributes["gen_ai.response.id"].startswith("cmpl-")
    assert "error.type" not in span.attributes


async def test_one_shot_reply_has_the_same_phases(traced: QuireProcess, sink: OtlpSink) -> None:
    body = {"messages": [{"role": "user", "content": "canary-7f3a"}], "max_tokens": 4}
    async with httpx.AsyncClient() as client:
        await client.post(f"{traced.address}/v1/chat/completions", json=body, headers={"x-request-id": "traced-2"})
    span = await span_of(sink, "traced-2")
    assert check_phases(sink, span)[-2:] == ["prefill", "decode"]
    assert "reply" in {child.name for child in sink.children_of(span)}
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert "canary-7f3a" not in repr(sink.spans)
    assert "canary-7f3a" not in traced.errors


async def test_request_whose_client_leaves_has_its_phases_too(traced: QuireProcess, sink: OtlpSink) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": FOREVER, "stream": True, "ignore_eos": True}
    async with (
        httpx.AsyncClient() as client,
        client.stream(
            "POST", f"{traced.address}/v1/completions", json=body, headers={"x-request-id": "traced-3"}
        ) as reply,
    ):
        lines = reply.aiter_lines()
        for _ in range(10):
            await anext(lines)
    await until_stats(traced.address, is_idle)
    span = await span_of(sink, "traced-3")
    assert span.attributes["error.type"] == "499"
    deadline_s = time.monotonic() + WITHIN_S
    while "decode" not in {child.name for child in sink.children_of(span)} and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    assert "decode" in check_phases(sink, span)


async def test_refused_request_is_a_span_without_phases(traced: QuireProcess, sink: OtlpSink) -> None:
    async with httpx.AsyncClient() as client:
        reply = await client.post(
            f"{traced.address}/v1/completions", json={"prompt": "a", "n": -1}, headers={"x-request-id": "traced-4"}
        )
    assert reply.status_code == 400
    deadline_s = time.monotonic() + WITHIN_S
    found: list[SinkSpan] = []
    while not found and time.monotonic() < deadline_s:
        found = [span for span in sink.spans if span.attributes.get("quire.request_id") == "traced-4"]
        await asyncio.sleep(0.05)
    assert [span.attributes["http.response.status_code"] for span in found] == [400]
    assert sink.children_of(found[0]) == []


async def test_sampled_steps_are_traces_of_their_own_linked_both_ways(traced: QuireProcess, sink: OtlpSink) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": 12, "ignore_eos": True}
    async with httpx.AsyncClient() as client:
        ids = ["traced-5", "traced-6"]
        asked = [
            client.post(f"{traced.address}/v1/completions", json=body, headers={"x-request-id": one}) for one in ids
        ]
        await asyncio.gather(*asked)
    spans = [await span_of(sink, one) for one in ids]
    wanted = {(span.trace_id, span.span_id) for span in spans}
    async with asyncio.timeout(WITHIN_S):
        while not (steps := [step for step in sink.named("engine step") if set(step.links) == wanted]):
            await asyncio.sleep(0.05)
    step = steps[0]
    assert step.trace_id not in {span.trace_id for span in spans}
    assert step.parent_id == ""
    assert (step.attributes["quire.batch_size"], step.attributes["quire.requests"]) == (2, 2)
    for span in spans:
        back = [child for child in sink.children_of(span) if (step.trace_id, step.span_id) in child.links]
        assert len(back) == 1
        assert back[0].start_ns <= step.end_ns
        assert step.start_ns <= back[0].end_ns


async def test_start_of_the_engine_is_a_trace(traced: QuireProcess, sink: OtlpSink) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not sink.named("engine start"):
            await asyncio.sleep(0.05)
    (start,) = sink.named("engine start")
    stages = sink.children_of(start)
    assert [stage.name for stage in stages[:2]] == ["starting the process", "importing"]
    assert start.start_ns == stages[0].start_ns
    assert all(earlier.end_ns < later.start_ns for earlier, later in pairwise(stages))
    assert stages[-1].end_ns < start.end_ns
    assert start.attributes["gen_ai.request.model"] == "fake/model"


@pytest.mark.slow
async def test_texts_and_metrics_are_sent_on_demand(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, running_sink() as sink:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        flags = ("--otlp-endpoint", sink.address, "--trace-content", "--otlp-metrics")
        with running_paced(tmp_path, *flags) as quire:
            body = {"messages": [{"role": "user", "content": "canary-7f3a"}], "max_tokens": 4, "ignore_eos": True}
            async with httpx.AsyncClient() as client:
                url = f"{quire.address}/v1/chat/completions"
                reply = await client.post(url, json=body, headers={"x-request-id": "told-1"})
            span = await span_of(sink, "told-1")
            async with asyncio.timeout(WITHIN_S):
                while not sink.points:
                    await asyncio.sleep(0.05)
            assert "canary-7f3a" not in quire.errors
    (said,) = json.loads(span.attributes["gen_ai.output.messages"])
    assert said["parts"][0]["content"] == reply.json()["choices"][0]["message"]["content"]
    assert json.loads(span.attributes["gen_ai.input.messages"])[0]["parts"][0]["content"] == "canary-7f3a"
    assert {point.name for point in sink.points} == {
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "gen_ai.client.token.usage",
    }
    assert "canary-7f3a" not in repr(sink.points)


@pytest.mark.slow
async def test_spans_are_sent_over_grpc(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, running_grpc_sink() as sink:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        with running_paced(tmp_path, "--otlp-endpoint", sink.address) as quire:
            body = {"prompt": [1], "max_tokens": 3}
            async with httpx.AsyncClient() as client:
                await client.post(f"{quire.address}/v1/completions", json=body, headers={"x-request-id": "grpc-1"})
            span = await span_of(sink, "grpc-1")
    assert "decode" in check_phases(sink, span)


@pytest.mark.slow
async def test_drain_sends_the_last_spans_and_a_dead_collector_costs_nothing(tmp_path: Path) -> None:
    with running_sink() as sink, running_paced(tmp_path / "a", "--otlp-endpoint", sink.address) as quire:
        await StreamClient(quire.address, max_tokens=3).run()
        quire.process.terminate()
        assert await asyncio.to_thread(quire.process.wait, 20) == 0
        assert "decode" in {span.name for span in sink.spans}
    with running_paced(tmp_path / "b", "--otlp-endpoint", "http://127.0.0.1:9") as quire:
        ending = await StreamClient(quire.address, max_tokens=3).run()
        assert ending.is_done
        quire.process.terminate()
        assert await asyncio.to_thread(quire.process.wait, 20) == 0
        assert "Traceback" not in quire.errors
