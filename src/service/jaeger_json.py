"""From traces to the JSON of Jaeger's two read APIs: the older one in microseconds, and OTLP. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.jaeger import (
    AnyValue,
    ArrayValue,
    Attribute,
    JaegerSpan,
    JaegerTrace,
    KeyValue,
    OtlpSpan,
    OtlpTraces,
    Process,
    Reference,
    Resource,
    ResourceSpans,
    Scope,
    ScopeSpans,
    ServiceSummary,
    SpanStatus,
    TracesData,
    TraceSummary,
)
from contracts.version import VERSION
from service.jaeger_parameters import tag_text
from service.jaeger_spans import MAX_SPANS_PER_TRACE, AttributeValue, RequestTrace, TraceSpan
from service.request_spans import SCOPE

PROCESS_ID = "p1"
OTLP_KINDS = {"internal": 1, "server": 2}
OTLP_ERROR = 2


def jaeger_trace(trace: RequestTrace, service: str) -> JaegerTrace:
    """What the page of a trace is made of."""
    return JaegerTrace(
        trace_id=trace.trace_id,
        spans=[_jaeger_span(trace.trace_id, span) for span in trace.spans],
        processes={PROCESS_ID: Process(service_name=service, tags=[_tag("service.version", VERSION)])},
        warnings=[left_out(trace.num_left_out)] if trace.num_left_out else None,
    )


def left_out(num_phases: int) -> str:
    """What is said of phases over the limit."""
    return f"{num_phases} phases are left out; a trace has at most {MAX_SPANS_PER_TRACE} spans here."


def span_tags(span: TraceSpan) -> dict[str, AttributeValue]:
    """What a span is searched by: its attributes and what Jaeger makes tags of."""
    return {"span.kind": span.kind, **span.attributes} | ({"error": True} if span.is_error else {})


def otlp_traces(traces: Iterable[RequestTrace], service: str) -> OtlpTraces:
    """The same for /api/v3: one resource for each trace."""
    resource = Resource(attributes=[_attribute("service.name", service), _attribute("service.version", VERSION)])
    scope = Scope(name=SCOPE, version=VERSION)
    found = []
    for trace in traces:
        spans = [_otlp_span(trace.trace_id, span) for span in trace.spans]
        found.append(ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope, spans=spans)]))
    return OtlpTraces(result=TracesData(resource_spans=found))


def trace_summary(trace: RequestTrace, service: str) -> TraceSummary:
    """A line of the search page."""
    num_errors = sum(span.is_error for span in trace.spans)
    return TraceSummary(
        trace_id=trace.trace_id,
        root_service_name=service,
        root_operation_name=trace.spans[0].name,
        min_start_time_unix_nano=str(trace.start_ns),
        max_end_time_unix_nano=str(trace.end_ns),
        span_count=len(trace.spans),
        error_span_count=num_errors,
        services=[ServiceSummary(name=service, span_count=len(trace.spans), error_span_count=num_errors)],
    )


def _jaeger_span(trace_id: str, span: TraceSpan) -> JaegerSpan:
    references = [] if span.parent_id is None else [Reference(trace_id=trace_id, span_id=span.parent_id)]
    start_us = span.start_ns // 1000
    return JaegerSpan(
        trace_id=trace_id,
        span_id=span.span_id,
        operation_name=span.name,
        references=references,
        start_time=start_us,
        # Both ends are cut off in the same way, so that phases which do not touch do not touch here either.
        duration=span.end_ns // 1000 - start_us,
        tags=[_tag(name, value) for name, value in span_tags(span).items()],
        process_id=PROCESS_ID,
    )


def _tag(name: str, value: AttributeValue) -> KeyValue:
    if isinstance(value, list):
        return KeyValue(key=name, type="string", value=tag_text(value))
    if isinstance(value, bool):
        return KeyValue(key=name, type="bool", value=value)
    if isinstance(value, int):
        return KeyValue(key=name, type="int64", value=value)
    return KeyValue(key=name, type="float64" if isinstance(value, float) else "string", value=value)


def _otlp_span(trace_id: str, span: TraceSpan) -> OtlpSpan:
    return OtlpSpan(
        trace_id=trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id or "",
        name=span.name,
        kind=OTLP_KINDS[span.kind],
        start_time_unix_nano=str(span.start_ns),
        end_time_unix_nano=str(span.end_ns),
        attributes=[_attribute(name, value) for name, value in span.attributes.items()],
        status=SpanStatus(code=OTLP_ERROR if span.is_error else 0),
    )


def _attribute(name: str, value: AttributeValue) -> Attribute:
    return Attribute(key=name, value=_any_value(value))


def _any_value(value: AttributeValue) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=str(value))
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)
