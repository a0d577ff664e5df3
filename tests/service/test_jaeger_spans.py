"""Records become traces that Jaeger can draw: parents, gaps, stable ids, and nothing of other keys."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from contracts.finish_reason import FinishReason
from contracts.records import BlockHolder, Chunk, RequestRecord, SampleRecord, Wait, WaitCause
from service.jaeger_json import jaeger_trace, otlp_traces, trace_summary
from service.jaeger_spans import (
    MAX_SPANS_PER_TRACE,
    RequestTrace,
    TraceSpan,
    Viewpoint,
    group_by_trace,
    make_trace,
    operations,
    trace_id_of,
)
from tests.service.test_why import TRACE, record, sample

OFFSET_NS = 1_700_000_000_000_000_123
VIEW = Viewpoint(offset_ns=OFFSET_NS, is_all_shown=True)
SERVER_SPAN = "00f067aa0ba902b7"
REPLY = f"cmpl-{'a' * 32}"


def one_trace(*records: RequestRecord, view: Viewpoint = VIEW) -> RequestTrace:
    served = [msgspec.structs.replace(record, model="fake/model") for record in records]
    ((trace_id, group),) = group_by_trace(served).items()
    return make_trace(trace_id, group, view)


def requests_of(trace: RequestTrace) -> list[TraceSpan]:
    return [span for span in trace.spans if span.parent_id is None]


def preempted_sample(**changes: Any) -> SampleRecord:
    again = Wait(52.5, 53.0, {WaitCause.BLOCKS: 0.5}, 0, preempted_by="cmpl-old", num_lost_tokens=858)
    chunks = [Chunk(52.0, 52.3, 600, 4, 100), Chunk(53.0, 53.1, 858, 4, 0)]
    return sample(waits=[Wait(50.0, 52.0, {}, 0), again], chunks=chunks, **changes)


def test_request_is_a_span_around_its_phases() -> None:
    request, *phases = one_trace(record(preempted_sample())).spans
    assert (request.span_id, request.parent_id, request.kind) == (SERVER_SPAN, None, "server")
    assert request.name == "text_completion fake/model"
    assert [phase.name for phase in phases] == ["queue", "prefill", "decode", "preempted", "prefill", "decode"]
    assert {(phase.parent_id, phase.kind) for phase in phases} == {(SERVER_SPAN, "internal")}
    assert request.start_ns == phases[0].start_ns
    assert phases[-1].end_ns < request.end_ns


def test_request_says_what_the_genai_view_shows() -> None:
    (request,) = requests_of(one_trace(record()))
    assert request.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "quire",
        "gen_ai.request.model": "fake/model",
        "gen_ai.response.model": "fake/model",
        "gen_ai.response.id": "cmpl-1",
        "gen_ai.request.choice.count": 1,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 856,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.usage.cache_read.input_tokens": 256,
        "gen_ai.response.time_to_first_chunk": 2.3,
        "quire.request_id": "req_1",
        "quire.key": "alice",
        "quire.status": "completed",
        "quire.main_cause": "waiting: KV blocks exhausted",
        "quire.preemptions": 0,
    }


@pytest.mark.parametrize(
    ("request_id", "operation"),
    [("chatcmpl-1", "chat"), ("cmpl-1", "text_completion"), ("something-1", "text_completion")],
)
def test_operation_follows_from_the_id_of_the_reply(request_id: str, operation: str) -> None:
    (request,) = requests_of(one_trace(record(request_id=request_id)))
    assert (request.name, request.attributes["gen_ai.operation.name"]) == (f"{operation} fake/model", operation)
    assert (request.name, "server") in operations(["fake/model"])


@pytest.mark.parametrize(
    ("reason", "error_type"),
    [
        (FinishReason.ERROR, "500"),
        (FinishReason.LOST, "503"),
        (FinishReason.DEADLINE, "503"),
        (FinishReason.ABORT, None),
        (FinishReason.STOP, None),
    ],
)
def test_failure_marks_the_request(reason: FinishReason, error_type: str | None) -> None:
    (request,) = requests_of(one_trace(record(sample(finish_reason=reason))))
    assert request.attributes.get("error.type") == error_type
    assert request.is_error is (error_type is not None)


def test_several_prompts_and_samples_are_one_request() -> None:
    records = [
        record(sample(), sample(sample_index=1, submitted_s=50.0), request_id=f"{REPLY}-{index}") for index in range(2)
    ]
    trace = one_trace(*records)
    (request,) = requests_of(trace)
    assert len(trace.spans) == 1 + 4 * 4
    assert len({span.span_id for span in trace.spans}) == 17
    assert request.attributes["gen_ai.response.id"] == REPLY
    assert request.attributes["gen_ai.usage.input_tokens"] == 2 * 856
    assert request.attributes["gen_ai.usage.output_tokens"] == 4 * 11
    assert request.attributes["gen_ai.request.choice.count"] == 4


def test_calls_of_one_caller_are_one_trace_with_a_span_for_each() -> None:
    later = sample(submitted_s=60.0, waits=[], chunks=[], first_token_s=61.0, finished_s=62.0, observed_s=62.0)
    trace = one_trace(record(later, request_id="chatcmpl-2", traceparent=f"00-{TRACE}-00f067aa0ba902b8-01"), record())
    assert [request.span_id for request in requests_of(trace)] == [SERVER_SPAN, "00f067aa0ba902b8"]
    assert trace.trace_id == TRACE


def test_calls_that_claim_the_same_span_are_kept_apart() -> None:
    requests = requests_of(one_trace(record(), record(request_id="cmpl-2"), record(request_id="cmpl-3")))
    assert len({request.span_id for request in requests}) == 3


def test_ids_are_the_same_at_the_next_look() -> None:
    other = Viewpoint(offset_ns=OFFSET_NS + 777, is_all_shown=True)
    assert [span.span_id for span in one_trace(record()).spans] == [
        span.span_id for span in one_trace(record(), view=other).spans
    ]


def test_phases_keep_their_ids_while_a_request_runs() -> None:
    whole = preempted_sample()
    running: dict[str, Any] = {"finished_s": None, "finish_reason": None}
    early = sample(waits=whole.waits[:1], chunks=whole.chunks[:1], **running | {"observed_s": 52.4})
    ids = {span.span_id for span in one_trace(record(whole)).spans}
    assert {span.span_id for span in one_trace(record(early)).spans} < ids


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{TRACE}-short-01", f"00-{'Z' * 32}-{SERVER_SPAN}-01"])
def test_record_without_a_trace_gets_ids_of_its_own(traceparent: str) -> None:
    records = [record(request_id=f"{REPLY}-{index}", traceparent=traceparent) for index in range(2)]
    assert trace_id_of(records[0]) == trace_id_of(records[1])
    assert trace_id_of(records[0]) != trace_id_of(record(request_id="cmpl-2", traceparent=traceparent))
    trace = one_trace(*records)
    assert (len(trace.trace_id), len(trace.spans[0].span_id), len(requests_of(trace))) == (32, 16, 1)


def test_request_that_waits_ends_with_what_is_known() -> None:
    waiting = sample(
        waits=[Wait(50.0, None, {WaitCause.BATCH: 3.0}, 0)],
        chunks=[],
        first_token_s=None,
        finished_s=None,
        finish_reason=None,
        num_output_tokens=0,
    )
    request, queue = one_trace(record(waiting)).spans
    assert (queue.name, request.attributes["quire.status"]) == ("queue", "queued")
    assert request.end_ns - request.start_ns == pytest.approx(3.3e9, abs=1e6)
    assert "gen_ai.response.time_to_first_chunk" not in request.attributes


def test_requests_of_other_keys_have_no_ids() -> None:
    foreign = Wait(50.0, 51.0, {WaitCause.BLOCKS: 1.0}, 0, 0, [BlockHolder("cmpl-foreign", 9, "carol")])
    view = Viewpoint(offset_ns=0, is_all_shown=False)
    trace = one_trace(record(sample(waits=[foreign]), tenant="alice"), view=view)
    assert "cmpl-foreign" not in repr(trace)
    assert "a request of another key: 9" in repr(trace)


def test_number_of_spans_is_bounded_and_what_is_missing_is_counted() -> None:
    chunks = [Chunk(52.0 + index / 100, 52.005 + index / 100, 8, 1, 0) for index in range(64)]
    records = [
        record(sample(chunks=chunks), request_id=f"cmpl-{index}", traceparent=f"00-{TRACE}-{index + 1:016x}-01")
        for index in range(50)
    ]
    trace = one_trace(*records)
    assert len(trace.spans) == MAX_SPANS_PER_TRACE
    assert len(requests_of(trace)) == 50
    per_request = len(one_trace(records[0]).spans)
    assert trace.num_left_out == 50 * per_request - MAX_SPANS_PER_TRACE
    (warning,) = jaeger_trace(trace, "quire").warnings or []
    assert warning.startswith(f"{trace.num_left_out} phases")


def test_newest_trace_comes_first() -> None:
    older = record(traceparent=f"00-{'1' * 32}-{SERVER_SPAN}-01")
    newer = record(sample(submitted_s=70.0), request_id="cmpl-2")
    assert list(group_by_trace([older, newer])) == [TRACE, "1" * 32]


@pytest.mark.parametrize("offset_ns", [OFFSET_NS, 0, 1, 999, 1_700_000_000_999_999_501])
def test_phases_do_not_touch_in_microseconds(offset_ns: int) -> None:
    view = Viewpoint(offset_ns=offset_ns, is_all_shown=True)
    request, *phases = jaeger_trace(one_trace(record(preempted_sample()), view=view), "quire").spans
    assert all(one.start_time + one.duration < two.start_time for one, two in pairwise(phases))
    assert request.start_time <= phases[0].start_time
    assert phases[-1].start_time + phases[-1].duration < request.start_time + request.duration


def test_jaeger_tags_have_types() -> None:
    request, queue, *_ = jaeger_trace(one_trace(record(sample(finish_reason=FinishReason.ERROR))), "quire").spans
    tags = {tag.key: (tag.type, tag.value) for tag in request.tags}
    assert tags["gen_ai.usage.input_tokens"] == ("int64", 856)
    assert tags["gen_ai.response.time_to_first_chunk"] == ("float64", 2.3)
    assert tags["gen_ai.response.finish_reasons"] == ("string", '["error"]')
    assert (tags["span.kind"], tags["error"]) == (("string", "server"), ("bool", True))
    assert request.references == []
    (reference,) = queue.references
    assert (reference.ref_type, reference.trace_id, reference.span_id) == ("CHILD_OF", TRACE, SERVER_SPAN)


def test_otlp_has_numbers_as_text_and_the_same_tree() -> None:
    trace = one_trace(record(sample(finish_reason=FinishReason.ERROR)))
    (resource_spans,) = otlp_traces([trace], "quire").result.resource_spans
    request, *phases = resource_spans.scope_spans[0].spans
    values = {attribute.key: attribute.value for attribute in request.attributes}
    assert values["gen_ai.usage.input_tokens"].int_value == "856"
    array = values["gen_ai.response.finish_reasons"].array_value
    assert array is not None
    assert [value.string_value for value in array.values] == ["error"]
    assert (request.kind, request.status.code, request.parent_span_id) == (2, 2, "")
    assert {(phase.kind, phase.status.code, phase.parent_span_id) for phase in phases} == {(1, 0, SERVER_SPAN)}
    assert int(request.start_time_unix_nano) == trace.start_ns


def test_summary_counts_the_spans() -> None:
    trace = one_trace(record(sample(finish_reason=FinishReason.ERROR)))
    summary = trace_summary(trace, "quire")
    assert (summary.span_count, summary.error_span_count, summary.orphan_span_count) == (5, 1, 0)
    assert summary.root_operation_name == "text_completion fake/model"
    assert summary.max_end_time_unix_nano == str(trace.end_ns)
