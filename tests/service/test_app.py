"""The application as a whole: what it imports, what it logs, what it traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contracts.settings import Settings
from service.app import create_app
from tests.fakes import FakeEngine, say

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "the-secret-prompt"}]}
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def test_the_service_never_imports_torch() -> None:
    code = "import sys, service.app; sys.exit(sum(name in sys.modules for name in ('torch', 'transformers')))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_debug_is_off_whatever_the_environment_says(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """S45"""
    monkeypatch.setenv("LITESTAR_DEBUG", "1")
    app = create_app(Settings(), engine)
    assert not app.debug


class TestLog:
    @pytest.fixture
    def lines(self) -> Iterator[list[Any]]:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            yield lines

    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_each_generation_leaves_one_line_of_numbers(
        self, client: httpx.AsyncClient, engine: FakeEngine, lines: list[Any], is_stream: bool
    ) -> None:
        engine.num_cached_tokens = 16
        reply = await client.post(CHAT, json=BODY | {"stream": is_stream}, headers={"x-request-id": "r1"})
        (line,) = [line for line in lines if line["event"] == "request_finished"]
        assert line.pop("total_ms") > 0
        assert line.pop("response_id") in reply.text
        assert line.pop("trace_id") == reply.headers["x-trace-id"]
        assert len(line.pop("span_id")) == 16
        assert line == {
            "event": "request_finished",
            "log_level": "info",
            "request_id": "r1",
            "path": CHAT,
            "model": "fake/model",
            "stream": is_stream,
            "status": 200,
            "prompt_tokens": len(engine.requests[0].prompt_token_ids),
            "completion_tokens": 7,
            "cached_tokens": 16,
            "queue_ms": 250.0,
            "ttft_ms": 500.0,
            "finish_reason": "stop",
        }

    async def test_neither_prompt_nor_answer_is_logged(
        self, client: httpx.AsyncClient, engine: FakeEngine, lines: list[Any]
    ) -> None:
        engine.script = say("the-secret-answer")
        await client.post(CHAT, json=BODY)
        await client.post(CHAT, json=BODY | {"n": "the-secret-number"})
        engine.fail_after = 1
        await client.post(CHAT, json=BODY)
        assert lines
        assert "secret" not in str(lines)

    async def test_failure_is_logged_with_its_cause_and_status(
        self, client: httpx.AsyncClient, engine: FakeEngine, lines: list[Any]
    ) -> None:
        engine.fail_after = 1
        await client.post(CHAT, json=BODY | {"stream": True})
        assert [line["status"] for line in lines if line["event"] == "request_finished"] == [500]
        assert [line["reason"] for line in lines if line["event"] == "generation_failed"] == [
            "CUDA error at 0x7f00 in /srv/engine.py"
        ]


class TestSpan:
    @pytest.fixture
    def exporter(self, monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
        """Spans of this test; the provider is handed to the application in place of the global one."""
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr("service.middleware.trace.get_tracer", provider.get_tracer)
        return exporter

    @pytest.fixture
    def traced(self, exporter: InMemorySpanExporter, client: httpx.AsyncClient) -> httpx.AsyncClient:
        return client

    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_one_span_for_each_request_named_by_its_route(
        self, exporter: InMemorySpanExporter, traced: httpx.AsyncClient, is_stream: bool
    ) -> None:
        await traced.post(CHAT, json=BODY | {"stream": is_stream}, headers={"x-request-id": "r1"})
        *children, span = exporter.get_finished_spans()
        assert [child.name for child in children] == ["reply"]
        assert span.name == "POST /v1/chat/completions"
        expected = {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "quire.request_id": "r1",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.stream": is_stream,
        }
        attributes = dict(span.attributes or {})
        assert {name: attributes.get(name) for name in expected} == expected

    async def test_traceparent_is_continued(self, exporter: InMemorySpanExporter, traced: httpx.AsyncClient) -> None:
        await traced.get("/health", headers={"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"})
        (span,) = exporter.get_finished_spans()
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == TRACE_ID

    async def test_trace_of_the_caller_is_kept_where_nobody_records(self, client: httpx.AsyncClient) -> None:
        reply = await client.get("/health", headers={"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"})
        assert reply.headers["x-trace-id"] == TRACE_ID

    async def test_request_has_a_trace_id_where_nobody_records(
        self, client: httpx.AsyncClient, engine: FakeEngine
    ) -> None:
        one, other = [(await client.post(CHAT, json=BODY)).headers["x-trace-id"] for _ in range(2)]
        assert one != other
        _, trace_id, span_id, flags = engine.requests[0].traceparent.split("-")
        assert (trace_id, len(span_id), flags) == (one, 16, "00")

    @pytest.mark.parametrize("has_usage", [True, False])
    @pytest.mark.parametrize(
        ("path", "body"), [(CHAT, BODY), ("/v1/completions", {"prompt": "a", "n": 2, "max_tokens": 4})]
    )
    async def test_last_event_of_a_stream_carries_the_trace_id(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], has_usage: bool
    ) -> None:
        asked = body | {"stream": True, "stream_options": {"include_usage": has_usage}}
        reply = await client.post(path, json=asked)
        *events, done = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
        assert done == "[DONE]"
        trace_ids = [json.loads(event).get("trace_id") for event in events]
        assert trace_ids[-1] == reply.headers["x-trace-id"]
        assert set(trace_ids[:-1]) == {None}

    async def test_log_lines_carry_the_ids_of_the_span(
        self, exporter: InMemorySpanExporter, traced: httpx.AsyncClient
    ) -> None:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            reply = await traced.post(CHAT, json=BODY)
        (finished,) = [line for line in lines if line["event"] == "request_finished"]
        span = exporter.get_finished_spans()[-1]
        assert span.context is not None
        assert finished["trace_id"] == f"{span.context.trace_id:032x}" == reply.headers["x-trace-id"]
        assert finished["span_id"] == f"{span.context.span_id:016x}"

    @pytest.mark.parametrize("traceparent", ["", "garbage", "00-0-0-01", "x" * 5000])
    async def test_bad_traceparent_is_dropped(
        self, exporter: InMemorySpanExporter, traced: httpx.AsyncClient, traceparent: str
    ) -> None:
        reply = await traced.get("/health", headers={"traceparent": traceparent})
        assert reply.status_code == 200
        assert exporter.get_finished_spans()[0].parent is None

    async def test_unknown_paths_do_not_become_names(
        self, exporter: InMemorySpanExporter, traced: httpx.AsyncClient
    ) -> None:
        await traced.get("/nope/123")
        assert [span.name for span in exporter.get_finished_spans()] == ["GET"]
