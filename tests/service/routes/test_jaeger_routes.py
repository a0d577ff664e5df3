"""Jaeger's page and Grafana get what they ask for, in the shapes they read; a key sees its own requests only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Request

from batching.record_ring import RecordRing
from contracts.errors import EngineDead
from contracts.finish_reason import FinishReason
from contracts.generation import GenerationRequest, Tenant
from contracts.records import BlockHolder, RecordQuery, RequestRecord, Wait, WaitCause
from contracts.sampling import SamplingParams
from contracts.settings import ServerSettings, Settings
from service.jaeger_search import MAX_SPANS, PAGE_LEN, read_records, within_bounds
from service.jaeger_spans import RequestTrace, TraceSpan
from service.routes.jaeger import handle_error
from tests.fakes import FakeEngine
from tests.service.test_why import TRACE, record, sample

OTHER_TRACE = "1" * 32
OPERATIONS = ["chat fake/model", "text_completion fake/model", "decode", "prefill", "preempted", "queue"]


@pytest.fixture
def engine(engine: FakeEngine) -> FakeEngine:
    """Remembers a text that ended long ago, and a later chat that failed."""
    failed = sample(submitted_s=70.0, waits=[], chunks=[], first_token_s=71.0, finish_reason=FinishReason.ERROR)
    failed = msgspec.structs.replace(failed, finished_s=72.0, observed_s=72.0)
    chat = record(failed, request_id="chatcmpl-2", traceparent=f"00-{OTHER_TRACE}-00f067aa0ba902b7-01", tenant="")
    engine.remembered = [chat, record()]
    return engine


async def get(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    reply = await client.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/json")
    assert reply.headers["cache-control"] == "no-store"
    return reply.json()


async def test_services_and_operations(client: httpx.AsyncClient) -> None:
    structured = {"total": 1, "limit": 0, "offset": 0, "errors": None}
    assert await get(client, "/api/services") == {"data": ["quire"], **structured}
    assert (await get(client, "/api/services/quire/operations"))["data"] == OPERATIONS
    assert (await get(client, "/api/services/other/operations"))["data"] == []
    servers = await get(client, "/api/operations?service=quire&spanKind=server")
    assert servers["data"] == [{"name": name, "spanKind": "server"} for name in OPERATIONS[:2]]
    assert await get(client, "/api/v3/services") == {"services": ["quire"]}
    found = await get(client, "/api/v3/operations?service=quire")
    assert [operation["name"] for operation in found["operations"]] == OPERATIONS
    assert (await get(client, "/api/dependencies?endTs=1700000000000&lookback=604800000"))["data"] == []


async def test_service_has_the_name_that_its_spans_have(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "llm")
    assert (await get(client, "/api/services"))["data"] == ["llm"]
    assert len((await get(client, "/api/traces?service=llm"))["data"]) == 2
    assert (await get(client, "/api/traces?service=quire"))["data"] == []


async def test_search_finds_the_newest_first(client: httpx.AsyncClient) -> None:
    found = await get(client, "/api/traces?service=quire&lookback=custom&limit=20")
    assert [trace["traceID"] for trace in found["data"]] == [OTHER_TRACE, TRACE]
    assert found["data"][1]["processes"]["p1"]["serviceName"] == "quire"
    assert {span["processID"] for span in found["data"][1]["spans"]} == {"p1"}
    one = await get(client, "/api/traces?service=quire&limit=1")
    assert [trace["traceID"] for trace in one["data"]] == [OTHER_TRACE]


@pytest.mark.parametrize(
    ("query", "v3_query"),
    [
        ("operation=chat+fake%2Fmodel", "query.operationName=chat+fake%2Fmodel"),
        ("tags=%7B%22error%22%3A%22true%22%7D", "query.attributes=%7B%22error%22%3A%22true%22%7D"),
        ("maxDuration=2s", "query.durationMax=2s"),
    ],
)
async def test_filters_hold_in_both_apis(client: httpx.AsyncClient, query: str, v3_query: str) -> None:
    found = await get(client, f"/api/traces?service=quire&{query}")
    assert [trace["traceID"] for trace in found["data"]] == [OTHER_TRACE]
    summaries = (await get(client, f"/api/v3/trace-summaries?query.serviceName=quire&{v3_query}"))["summaries"]
    assert [(line["traceId"], line["errorSpanCount"]) for line in summaries] == [(OTHER_TRACE, 1)]
    spans = (await get(client, f"/api/v3/traces?{v3_query}"))["result"]["resourceSpans"]
    assert {span["traceId"] for one in spans for span in one["scopeSpans"][0]["spans"]} == {OTHER_TRACE}


@pytest.mark.parametrize("trace_id", [TRACE, TRACE.upper(), TRACE.lstrip("0")])
async def test_trace_is_found_by_its_id(client: httpx.AsyncClient, engine: FakeEngine, trace_id: str) -> None:
    engine.remembered = engine.remembered[1:]
    (trace,) = (await get(client, f"/api/traces/{trace_id}?raw=true&start=1&end=2"))["data"]
    names = [span["operationName"] for span in trace["spans"]]
    assert names == ["text_completion fake/model", "queue", "prefill", "prefill", "decode"]
    result = (await get(client, f"/api/v3/traces/{trace_id}"))["result"]
    assert len(result["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 5
    assert {query.any_id for query in engine.queries} == {TRACE}


async def test_json_for_people_is_indented(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.remembered = engine.remembered[1:]
    plain = await client.get(f"/api/traces/{TRACE}?prettyPrint=false")
    pretty = await client.get(f"/api/traces/{TRACE}?raw=true&prettyPrint=true")
    assert plain.json().keys() == pretty.json().keys()
    assert ("\n" in plain.text, '\n    "data": [\n' in pretty.text) == (False, True)


async def test_unknown_trace_is_told_in_either_shape(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.remembered = []
    failure = await get(client, f"/api/traces/{TRACE}", 404)
    assert failure["data"] is None
    assert failure["errors"][0]["code"] == 404
    assert failure["errors"][0]["msg"].startswith("trace not found")
    assert (await get(client, f"/api/v3/traces/{TRACE}", 404))["error"]["httpCode"] == 404
    assert (await get(client, "/api/v3/traces", 404))["error"]["message"] == "No traces found."
    assert (await get(client, "/api/v3/trace-summaries"))["summaries"] == []
    assert (await get(client, "/api/traces"))["data"] == []


async def test_record_without_a_trace_is_found_by_the_id_it_was_shown_with(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    async def records(query: RecordQuery) -> list[RequestRecord]:
        return [record(traceparent="")] if query.any_id is None else []

    engine.records = records  # type: ignore[method-assign]
    (shown,) = (await get(client, "/api/traces"))["data"]
    (opened,) = (await get(client, f"/api/traces/{shown['traceID']}"))["data"]
    assert [span["spanID"] for span in opened["spans"]] == [span["spanID"] for span in shown["spans"]]
    await get(client, f"/api/traces/{TRACE}", 404)


@pytest.mark.parametrize(
    "path",
    [
        "/api/services?a=b",
        "/api/services/quire/operations?a=b",
        "/api/operations",
        "/api/traces?limit=0",
        "/api/traces/xyz",
        f"/api/traces/{TRACE}?start=x",
        "/api/dependencies?endTs=x",
    ],
)
async def test_refusal_has_the_shape_that_the_page_shows(client: httpx.AsyncClient, path: str) -> None:
    failure = await get(client, path, 400)
    assert [error["code"] for error in failure["errors"]] == [400]


@pytest.mark.parametrize(
    "path",
    ["services?a=b", "operations", "traces?query.searchDepth=0", "traces/xyz", "trace-summaries?query.filter=x"],
)
async def test_refusal_of_the_newer_api_has_its_shape(client: httpx.AsyncClient, path: str) -> None:
    failure = await get(client, f"/api/v3/{path}", 400)
    assert failure["error"]["httpCode"] == 400


async def test_dead_engine_is_told_with_when_to_retry() -> None:
    scope: Any = {"type": "http", "path": "/api/services", "headers": [], "query_string": b"", "method": "GET"}
    scope |= {"server": ("localhost", 80), "root_path": "", "scheme": "http"}
    reply = handle_error(Request(scope), EngineDead("The engine is gone."))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


async def test_long_memory_is_read_in_pages_without_gaps() -> None:
    ring = RecordRing()
    for index in range(3 * PAGE_LEN + 7):
        ring.begin(
            GenerationRequest(
                request_id=f"cmpl-{index}", prompt_token_ids=[1], sampling=SamplingParams(), tenant=Tenant(name="a")
            )
        )
        ring.end(f"cmpl-{index}", sample(submitted_s=50.0 + index // 3))
    queries: list[RecordQuery] = []

    class Engine:
        async def records(self, query: RecordQuery) -> list[RequestRecord]:
            queries.append(query)
            return ring.find(query, lambda ids: {})

    engine: Any = Engine()
    found = await read_records(engine, RecordQuery(tenant="a"))
    assert len(found) == len({one.request_id for one in found}) == 3 * PAGE_LEN + 7
    assert len(queries) == 4
    assert await read_records(engine, RecordQuery(tenant="b")) == []


def test_answer_with_whole_traces_is_bounded() -> None:
    span = TraceSpan(span_id="1", parent_id=None, name="a", start_ns=0, end_ns=1, attributes={})
    long = RequestTrace(trace_id=TRACE, spans=[span] * (MAX_SPANS - 1))
    assert within_bounds([long, long, long]) == ([long], 2)
    assert within_bounds([RequestTrace(trace_id=TRACE, spans=[span] * 2 * MAX_SPANS)])[1] == 0
    assert within_bounds([]) == ([], 0)


async def test_what_is_left_out_of_an_answer_is_told(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jaeger_search.MAX_SPANS", 3)
    found = await get(client, "/api/traces")
    assert len(found["data"]) == 1
    assert found["errors"][0]["msg"].startswith("1 traces are left out")
    assert "at most 1" in (await get(client, "/api/v3/traces", 400))["error"]["message"]
    assert len((await get(client, "/api/v3/trace-summaries"))["summaries"]) == 2


class TestOwners:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        path = tmp_path / "keys.toml"
        scopes = {"alice": '["infer"]', "bob": '["infer", "admin"]', "metrics": '["metrics"]'}
        path.write_text(
            "".join(f'[[keys]]\nlabel = "{n}"\nkey = "{n}-0123456789abcdef"\nscopes = {s}\n' for n, s in scopes.items())
        )
        path.chmod(0o600)
        return Settings(server=ServerSettings(api_keys_file=str(path)))

    @pytest.mark.parametrize(("name", "tenant"), [("alice", "alice"), ("bob", None)], ids=["infer", "admin"])
    @pytest.mark.parametrize(
        "path", ["traces", f"traces/{TRACE}", "v3/traces", f"v3/traces/{TRACE}", "v3/trace-summaries"]
    )
    async def test_key_asks_for_its_own_requests_only(
        self, client: httpx.AsyncClient, engine: FakeEngine, name: str, tenant: str | None, path: str
    ) -> None:
        foreign = Wait(50.0, 51.0, {WaitCause.BLOCKS: 1.0}, 0, 0, [BlockHolder("cmpl-foreign", 9, "carol")])
        engine.remembered = [record(sample(waits=[foreign]))]
        headers = {"authorization": f"Bearer {name}-0123456789abcdef"}
        reply = await client.get(f"/api/{path}", headers=headers)
        assert reply.status_code == 200
        assert {query.tenant for query in engine.queries} == {tenant}
        assert ("cmpl-foreign" in reply.text) == (tenant is None and "summaries" not in path)

    @pytest.mark.parametrize("path", ["services", "traces", f"traces/{TRACE}", "v3/services", "v3/trace-summaries"])
    async def test_nobody_asks_without_a_key_or_its_scope(self, client: httpx.AsyncClient, path: str) -> None:
        assert (await client.get(f"/api/{path}")).status_code == 401
        headers = {"authorization": "Bearer metrics-0123456789abcdef"}
        assert (await client.get(f"/api/{path}", headers=headers)).status_code == 403

    async def test_key_may_come_as_a_password(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/services", auth=("grafana", "alice-0123456789abcdef"))).status_code == 200
