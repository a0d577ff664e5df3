"""What is searched for: every parameter of both APIs is read, or refused by its name; conditions hold for one span."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.errors import RequestError
from service.jaeger_parameters import Parameters
from service.jaeger_query import (
    TraceSearch,
    check_dependencies,
    check_get,
    check_get_v3,
    read_operations,
    read_search,
    read_search_v3,
)
from service.jaeger_spans import RequestTrace, Viewpoint, make_trace
from tests.service.test_why import TRACE, record

SECOND_NS = 10**9
NOW_NS = 1_800_000_000 * SECOND_NS
TAGS = {"service.version": "1"}


@pytest.fixture(scope="module")
def trace() -> RequestTrace:
    """From 50 s for 3.3 s: queue 2 s, prefill 200 and 100 ms, decode 1 s."""
    return make_trace(TRACE, [record(model="m")], Viewpoint(offset_ns=0, is_all_shown=True))


@pytest.mark.parametrize(
    ("conditions", "is_met"),
    [
        ({}, True),
        ({"service": "quire"}, True),
        ({"service": "other"}, False),
        ({"operation": "text_completion m"}, True),
        ({"operation": "decode"}, True),
        ({"operation": "preempted"}, False),
        ({"start_ns": 53 * SECOND_NS}, False),
        ({"start_ns": 52 * SECOND_NS}, True),
        ({"start_ns": 52 * SECOND_NS, "operation": "queue"}, False),
        ({"end_ns": 49 * SECOND_NS}, False),
        ({"min_ns": 3 * SECOND_NS}, True),
        ({"min_ns": 4 * SECOND_NS}, False),
        ({"max_ns": 3 * SECOND_NS}, False),
        ({"max_ns": SECOND_NS, "operation": "prefill"}, True),
        ({"min_ns": SECOND_NS, "operation": "prefill"}, False),
        ({"tags": {"quire.key": "alice"}}, True),
        ({"tags": {"quire.key": "bob"}}, False),
        ({"tags": {"error": "false"}}, True),
        ({"tags": {"error": "true"}}, False),
        ({"tags": {"quire.batch_size": "4"}}, True),
        ({"tags": {"quire.batch_size": "4", "quire.key": "alice"}}, False),
        ({"tags": {"service.version": "1", "gen_ai.usage.input_tokens": "856"}}, True),
        ({"tags": {"gen_ai.response.finish_reasons": '["length"]', "span.kind": "server"}}, True),
        ({"trace_ids": [TRACE], "service": "other"}, True),
        ({"trace_ids": ["0" * 32]}, False),
    ],
)
def test_one_span_meets_all_conditions(trace: RequestTrace, conditions: dict[str, Any], is_met: bool) -> None:
    assert TraceSearch(**conditions).is_met_by(trace, "quire", TAGS) is is_met


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ([], TraceSearch()),
        ([("service", "quire"), ("operation", ""), ("limit", "20")], TraceSearch(service="quire", limit=20)),
        ([("start", "1700000000000000"), ("end", "1700000001000000"), ("lookback", "custom")], "window"),
        ([("start", "1700000000000000"), ("end", "1700000001000000"), ("lookback", "1h")], "window"),
        ([("lookback", "2h")], TraceSearch(start_ns=NOW_NS - 7200 * SECOND_NS)),
        ([("minDuration", "1.5s"), ("maxDuration", "1m30s")], TraceSearch(min_ns=1_500_000_000, max_ns=90 * SECOND_NS)),
        ([("minDuration", "100ms"), ("maxDuration", "2 h")], TraceSearch(min_ns=10**8, max_ns=7200 * SECOND_NS)),
        ([("minDuration", "5us")], TraceSearch(min_ns=5000)),
        ([("minDuration", "5\u00b5s")], TraceSearch(min_ns=5000)),
        ([("tags", '{"error":"true","n":1}')], TraceSearch(tags={"error": "true", "n": "1"})),
        ([("tags", 'error a=b c="d e\\"f" g=')], TraceSearch(tags={"error": "true", "a": "b", "c": 'd e"f', "g": ""})),
        ([("tag", "a:b:c"), ("tag", "d:")], TraceSearch(tags={"a": "b:c", "d": ""})),
        ([("traceID", "ABC"), ("traceID", TRACE)], TraceSearch(trace_ids=["abc".zfill(32), TRACE])),
        ([("raw", "true"), ("prettyPrint", "true")], TraceSearch()),
    ],
)
def test_older_search_is_read(parameters: Parameters, expected: TraceSearch | str) -> None:
    window = TraceSearch(start_ns=1_700_000_000 * SECOND_NS, end_ns=1_700_000_001 * SECOND_NS)
    assert read_search(parameters, NOW_NS) == (window if expected == "window" else expected)


@pytest.mark.parametrize(
    "parameters",
    [
        {"query.serviceName": "quire", "query.searchDepth": "20", "query.attributes": '{"error":"true"}'}
        | {"query.startTimeMin": "2023-11-14T22:13:20.000Z", "query.startTimeMax": "2023-11-14T22:13:21Z"}
        | {"query.durationMin": "1s", "query.durationMax": "2s", "query.operationName": "decode"},
        {"query.service_name": "quire", "query.num_traces": "20", "query.attributes": '{"error":"true"}'}
        | {
            "query.start_time_min": "2023-11-14T23:13:20 01:00",
            "query.start_time_max": "2023-11-14T22:13:21.000000000Z",
        }
        | {"query.duration_min": "1s", "query.duration_max": "2s", "query.operation_name": "decode"}
        | {"query.raw_traces": "false"},
    ],
    ids=["page", "grafana"],
)
def test_newer_search_is_read(parameters: dict[str, str]) -> None:
    assert read_search_v3(list(parameters.items())) == TraceSearch(
        service="quire",
        operation="decode",
        start_ns=1_700_000_000 * SECOND_NS,
        end_ns=1_700_000_001 * SECOND_NS,
        min_ns=SECOND_NS,
        max_ns=2 * SECOND_NS,
        tags={"error": "true"},
        limit=20,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1501"),
        ("limit", "x"),
        ("start", "yesterday"),
        ("start", "-1"),
        ("end", "1e9"),
        ("lookback", "1y"),
        ("minDuration", "5"),
        ("minDuration", "1 parsec"),
        ("maxDuration", "-1s"),
        ("tags", "{"),
        ("tags", '{"a":["b"]}'),
        ("tags", '="'),
        ("tag", "a"),
        ("traceID", "xyz"),
        ("traceID", "0" * 33),
        ("raw", "maybe"),
        ("colour", "red"),
    ],
)
def test_older_parameter_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(RequestError, match=name) as refused:
        read_search([(name, value)], NOW_NS)
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query.searchDepth", "0"),
        ("query.startTimeMin", "1700000000"),
        ("query.startTimeMin", "2023-11-14T22:13:20"),
        ("query.startTimeMax", "soon"),
        ("query.durationMin", "5"),
        ("query.attributes", "{"),
        ("query.rawTraces", "maybe"),
        ("query.filter", "{}"),
        ("service", "quire"),
    ],
)
def test_newer_parameter_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(RequestError, match=name.split(".")[-1]) as refused:
        read_search_v3([(name, value)])
    assert refused.value.param == name


def test_what_can_find_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="longest"):
        read_search([("minDuration", "2s"), ("maxDuration", "1s")], NOW_NS)
    with pytest.raises(RequestError, match="before its start"):
        read_search([("start", "2"), ("end", "1")], NOW_NS)


def test_repeated_parameter_is_refused() -> None:
    with pytest.raises(RequestError, match="2 times") as refused:
        read_search([("service", "a"), ("service", "b")], NOW_NS)
    assert refused.value.param == "service"


def test_operations_need_a_service() -> None:
    assert read_operations([("service", "quire"), ("span_kind", "server")], is_v3=True) == ("quire", "server")
    assert read_operations([("service", "quire")], is_v3=False) == ("quire", None)
    with pytest.raises(RequestError, match="service"):
        read_operations([], is_v3=False)
    with pytest.raises(RequestError, match="spanKind"):
        read_operations([("service", "quire"), ("spanKind", "round")], is_v3=False)


def test_other_parameters_are_checked() -> None:
    check_get([("start", "1"), ("end", "2"), ("raw", "true"), ("prettyPrint", "true")])
    check_get_v3([("start_time", "2023-11-14T22:13:20Z"), ("endTime", "2023-11-14T22:13:20Z"), ("raw_traces", "1")])
    check_dependencies([("endTs", "1"), ("lookback", "2")])
    with pytest.raises(RequestError, match="lookback"):
        check_dependencies([("lookback", "1h")])
    with pytest.raises(RequestError, match="startTime"):
        check_get_v3([("start_time", "1")])
