"""Some steps become spans of their own: those whose turn it is, and slow ones; records remember them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batching.scheduler import Scheduler
from batching.step import SampledToken, StepOutput
from batching.step_spans import MAX_LINKS, StepSpans, links_to, span_context
from contracts.records import MAX_STEP_LINKS, SampleRecord
from tests.batching.core_world import small_config, small_request

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OFFSET_NS = 10**18


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("batching.step_spans.trace.get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def run_steps(spans: StepSpans, durations_s: list[float], traceparent: str = PARENT) -> SampleRecord:
    """One request, one step for each duration; its record."""
    scheduler = Scheduler(small_config(num_blocks=100, limits=(500, 10, 500)))
    request = small_request("a", [1], max_tokens=len(durations_s), traceparent=traceparent)
    scheduler.submit(request, 0.0)
    now_s = 0.0
    records = []
    for duration_s in durations_s:
        plan = scheduler.schedule(now_s)
        assert plan is not None
        began_s, now_s = now_s, now_s + duration_s
        spans.observe(plan, scheduler, began_s, now_s)
        output = StepOutput(step_id=plan.step_id, sampled=[SampledToken(token_id=0)], duration_s=duration_s)
        records += [delta.record for delta in scheduler.commit(output, now_s) if delta.record is not None]
    (record,) = records
    return record


def test_one_of_so_many_steps_is_a_root_span_linked_with_its_requests(exporter: InMemorySpanExporter) -> None:
    record = run_steps(StepSpans(3, lambda: OFFSET_NS), [1.0] * 7)
    spans = exporter.get_finished_spans()
    assert [(span.attributes or {})["quire.step_id"] for span in spans] == [0, 3, 6]
    assert [(span.start_time, span.end_time) for span in spans][1] == (OFFSET_NS + 3 * 10**9, OFFSET_NS + 4 * 10**9)
    assert {span.parent for span in spans} == {None}
    assert len({span.context.trace_id for span in spans if span.context}) == 3
    assert [[format(link.context.span_id, "016x") for link in span.links] for span in spans] == [
        ["b7ad6b7169203331"]
    ] * 3
    assert [(link.at_s, link.span_id) for link in record.step_links] == [
        (at_s, format(span.context.span_id, "016x"))
        for at_s, span in zip((0.5, 3.5, 6.5), spans, strict=True)
        if span.context
    ]


def test_slow_step_gets_a_span_whatever_its_number(exporter: InMemorySpanExporter) -> None:
    run_steps(StepSpans(1000, lambda: 0), [0.1] * 10 + [0.8] + [0.1] * 3)
    told = [span.attributes or {} for span in exporter.get_finished_spans()]
    assert [(one["quire.step_id"], one["quire.is_slow"]) for one in told] == [(0, False), (10, True)]


def test_slow_steps_in_a_row_get_one_span_a_second(exporter: InMemorySpanExporter) -> None:
    run_steps(StepSpans(1000, lambda: 0), [0.01] * 10 + [0.4] + [0.4] + [0.01] * 3)
    assert len(exporter.get_finished_spans()) == 2


def test_record_keeps_a_bounded_number_of_links(exporter: InMemorySpanExporter) -> None:
    record = run_steps(StepSpans(1, lambda: 0), [1.0] * (MAX_STEP_LINKS + 5))
    assert len(record.step_links) == MAX_STEP_LINKS


def test_without_an_exporter_nothing_is_remembered() -> None:
    assert run_steps(StepSpans(1, lambda: 0), [1.0] * 3).step_links == []


@pytest.mark.parametrize("traceparent", ["", "nonsense"])
def test_request_without_a_trace_has_no_link(exporter: InMemorySpanExporter, traceparent: str) -> None:
    run_steps(StepSpans(1, lambda: 0), [1.0], traceparent)
    (span,) = exporter.get_finished_spans()
    assert list(span.links) == []


def test_links_are_bounded_and_each_request_has_one() -> None:
    requests = [
        small_request(f"a{index}", [1], traceparent=f"00-{index + 1:032x}-{index + 1:016x}-01")
        for index in range(MAX_LINKS + 9)
    ]
    assert len(links_to(requests)) == MAX_LINKS
    assert len(links_to([requests[0], requests[0]])) == 1


def test_trace_context_is_read() -> None:
    context = span_context(PARENT)
    assert context is not None
    assert (context.span_id, context.is_remote, context.trace_flags) == (0xB7AD6B7169203331, True, trace.TraceFlags(1))
