"""Wire structs of the read API that Jaeger's UI and Grafana's Jaeger data source ask: /api and /api/v3.

The names are Jaeger's. The older shape (traceID, tags) is what a trace is opened with, the newer one (OTLP as JSON,
where whole numbers are text) what is searched with.
"""

from __future__ import annotations

import msgspec

Scalar = bool | int | float | str


class KeyValue(msgspec.Struct, frozen=True, kw_only=True):
    """A tag of a span or a process."""

    key: str
    type: str
    """string, bool, int64 or float64."""
    value: Scalar


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """From a span to its parent."""

    ref_type: str = msgspec.field(name="refType", default="CHILD_OF")
    trace_id: str = msgspec.field(name="traceID")
    span_id: str = msgspec.field(name="spanID")


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event within a span; ours have none."""

    timestamp: int
    fields: list[KeyValue]


class JaegerSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A request or one of its phases."""

    trace_id: str = msgspec.field(name="traceID")
    span_id: str = msgspec.field(name="spanID")
    operation_name: str = msgspec.field(name="operationName")
    references: list[Reference]
    start_time: int = msgspec.field(name="startTime")
    """Microseconds since 1970."""
    duration: int
    """Microseconds."""
    tags: list[KeyValue]
    logs: list[LogEntry] = []
    process_id: str = msgspec.field(name="processID", default="p1")
    warnings: list[str] | None = None


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """Who made the spans."""

    service_name: str = msgspec.field(name="serviceName")
    tags: list[KeyValue]


class JaegerTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One trace."""

    trace_id: str = msgspec.field(name="traceID")
    spans: list[JaegerSpan]
    processes: dict[str, Process]
    warnings: list[str] | None = None


class JaegerError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the UI shows of a failure."""

    code: int = 0
    """HTTP status; absent where only a part is missing."""
    msg: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A name that spans have."""

    name: str
    span_kind: str = msgspec.field(name="spanKind")
    """server or internal."""


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """A service that calls another; there are none."""

    parent: str
    child: str
    call_count: int = msgspec.field(name="callCount")


class _Structured(msgspec.Struct, frozen=True, kw_only=True):
    total: int = 0
    limit: int = 0
    offset: int = 0
    errors: list[JaegerError] | None = None


class JaegerNames(_Structured, frozen=True, kw_only=True):
    """Names of services or of operations."""

    data: list[str]


class JaegerOperations(_Structured, frozen=True, kw_only=True):
    """Operations with their kinds."""

    data: list[Operation]


class JaegerTraces(_Structured, frozen=True, kw_only=True):
    """Traces that were looked for; `errors` says what is missing from them."""

    data: list[JaegerTrace]


class JaegerDependencies(_Structured, frozen=True, kw_only=True):
    """Who calls whom."""

    data: list[Dependency]


class JaegerFailure(_Structured, frozen=True, kw_only=True):
    """A request to /api that failed."""

    data: None = None


class GatewayErrorDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The status again, and the reason."""

    http_code: int = msgspec.field(name="httpCode")
    message: str


class GatewayError(msgspec.Struct, frozen=True, kw_only=True):
    """A request to /api/v3 that failed."""

    error: GatewayErrorDetails


class AnyValue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of them is set."""

    string_value: str | None = msgspec.field(name="stringValue", default=None)
    bool_value: bool | None = msgspec.field(name="boolValue", default=None)
    int_value: str | None = msgspec.field(name="intValue", default=None)
    double_value: float | None = msgspec.field(name="doubleValue", default=None)
    array_value: ArrayValue | None = msgspec.field(name="arrayValue", default=None)


class ArrayValue(msgspec.Struct, frozen=True, kw_only=True):
    """A list."""

    values: list[AnyValue]


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag is in OTLP."""

    key: str
    value: AnyValue


class SpanStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """0: nothing is said; 2: it failed."""

    code: int = 0


class OtlpSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request or one of its phases."""

    trace_id: str = msgspec.field(name="traceId")
    span_id: str = msgspec.field(name="spanId")
    parent_span_id: str = msgspec.field(name="parentSpanId", default="")
    name: str
    kind: int
    """1: internal, 2: server."""
    start_time_unix_nano: str = msgspec.field(name="startTimeUnixNano")
    end_time_unix_nano: str = msgspec.field(name="endTimeUnixNano")
    attributes: list[Attribute]
    status: SpanStatus


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the program that made the spans."""

    name: str
    version: str


class ScopeSpans(msgspec.Struct, frozen=True, kw_only=True):
    """Spans of one scope."""

    scope: Scope
    spans: list[OtlpSpan]


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """Who made the spans."""

    attributes: list[Attribute]


class ResourceSpans(msgspec.Struct, frozen=True, kw_only=True):
    """The spans of one trace."""

    resource: Resource
    scope_spans: list[ScopeSpans] = msgspec.field(name="scopeSpans")


class TracesData(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found."""

    resource_spans: list[ResourceSpans] = msgspec.field(name="resourceSpans")


class OtlpTraces(msgspec.Struct, frozen=True, kw_only=True):
    """Traces as OTLP."""

    result: TracesData


class ServiceNames(msgspec.Struct, frozen=True, kw_only=True):
    """The services there are."""

    services: list[str]


class OperationList(msgspec.Struct, frozen=True, kw_only=True):
    """The operations of a service."""

    operations: list[Operation]


class ServiceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A service's part of a trace."""

    name: str
    span_count: int = msgspec.field(name="spanCount")
    error_span_count: int = msgspec.field(name="errorSpanCount")


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the search page."""

    trace_id: str = msgspec.field(name="traceId")
    root_service_name: str = msgspec.field(name="rootServiceName")
    root_operation_name: str = msgspec.field(name="rootOperationName")
    min_start_time_unix_nano: str = msgspec.field(name="minStartTimeUnixNano")
    max_end_time_unix_nano: str = msgspec.field(name="maxEndTimeUnixNano")
    span_count: int = msgspec.field(name="spanCount")
    error_span_count: int = msgspec.field(name="errorSpanCount")
    orphan_span_count: int = msgspec.field(name="orphanSpanCount", default=0)
    services: list[ServiceSummary]


class TraceSummaries(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found."""

    summaries: list[TraceSummary]
