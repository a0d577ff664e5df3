"""What a request to Jaeger's API asks for, and which traces are meant by it. Pure; knows no HTTP.

Both APIs ask the same under different names. Every parameter is honoured or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from contracts.errors import InvalidValue, MissingParameter
from service.jaeger_json import span_tags
from service.jaeger_parameters import (
    Given,
    Parameters,
    collect,
    in_todays_spelling,
    read,
    read_bool,
    read_duration,
    read_lookback,
    read_microseconds,
    read_moment,
    read_pair,
    read_tags,
    read_text,
    read_trace_id,
    read_whole,
    tag_text,
    wrong,
)
from service.jaeger_spans import RequestTrace, TraceSpan

MAX_LIMIT = 1500
"""As the form of Jaeger's page has it."""
DEFAULT_LIMIT = 100
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")

PRETTY: Final = "prettyPrint"
_SHARED = ("service", "operation", "minDuration", "maxDuration", "limit", "tags", "raw")
SEARCH_PARAMETERS: Final = (*_SHARED, "start", "end", "lookback", "tag", "traceID", PRETTY)
"""Of GET /api/traces. `raw` changes nothing: spans are shown as they are in any case."""
GET_PARAMETERS: Final = ("start", "end", "raw", PRETTY)
"""Of GET /api/traces/{trace_id}. start and end tell a store where to look; nothing depends on them here."""
V3_NAMES: Final = {
    "service": "query.serviceName",
    "operation": "query.operationName",
    "minDuration": "query.durationMin",
    "maxDuration": "query.durationMax",
    "limit": "query.searchDepth",
    "tags": "query.attributes",
    "raw": "query.rawTraces",
}
"""What the newer API calls the same."""
SEARCH_PARAMETERS_V3: Final = (*V3_NAMES.values(), "query.startTimeMin", "query.startTimeMax")
GET_PARAMETERS_V3: Final = ("startTime", "endTime", "rawTraces")
OPERATION_PARAMETERS: Final = ("service", "spanKind")
DEPENDENCY_PARAMETERS: Final = ("endTs", "lookback", "service")


class TraceSearch(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions hold together, for one and the same span of a trace."""

    service: str | None = None
    operation: str | None = None
    start_ns: int | None = None
    """Of the span's beginning, in Unix time."""
    end_ns: int | None = None
    min_ns: int | None = None
    max_ns: int | None = None
    tags: dict[str, str] = {}
    trace_ids: list[str] = []
    """Where there are any, these are wanted and nothing else counts."""
    limit: int = DEFAULT_LIMIT

    def is_met_by(self, trace: RequestTrace, service: str, service_tags: Mapping[str, str]) -> bool:
        """Whether the trace is wanted."""
        if self.trace_ids:
            return trace.trace_id in self.trace_ids
        return self.service in (None, service) and any(self._is_meant(span, service_tags) for span in trace.spans)

    def _is_meant(self, span: TraceSpan, service_tags: Mapping[str, str]) -> bool:
        if self.operation not in (None, span.name) or not _is_between(span.start_ns, self.start_ns, self.end_ns):
            return False
        is_bounded = self.min_ns is not None or self.max_ns is not None
        # Where no operation is named a duration means the request's: nearly every one has some phase that is short.
        if is_bounded and self.operation is None and span.parent_id is not None:
            return False
        return _is_between(span.end_ns - span.start_ns, self.min_ns, self.max_ns) and self._has_tags(span, service_tags)

    def _has_tags(self, span: TraceSpan, service_tags: Mapping[str, str]) -> bool:
        if not self.tags:
            return True
        texts = {name: tag_text(value) for name, value in ({"error": False} | span_tags(span)).items()}
        return self.tags.items() <= (texts | dict(service_tags)).items()


def read_search(parameters: Parameters, now_ns: int) -> TraceSearch:
    """What GET /api/traces asks for."""
    given = collect(parameters, SEARCH_PARAMETERS)
    start_ns, end_ns = read(given, "start", read_microseconds), read(given, "end", read_microseconds)
    lookback_ns = read(given, "lookback", read_lookback)
    if start_ns is None and lookback_ns is not None:
        start_ns = (now_ns if end_ns is None else end_ns) - lookback_ns
    search = _build(given, {name: name for name in _SHARED}, start_ns, end_ns)
    tags = dict(search.tags)
    for text in given.get("tag", []):
        tags |= read_pair(text, "tag")
    trace_ids = [read_trace_id(text, "traceID") for text in given.get("traceID", [])]
    return msgspec.structs.replace(search, tags=tags, trace_ids=trace_ids)


def read_search_v3(parameters: Parameters) -> TraceSearch:
    """What GET /api/v3/traces and /api/v3/trace-summaries ask for."""
    given = collect(in_todays_spelling(parameters, SEARCH_PARAMETERS_V3), SEARCH_PARAMETERS_V3)
    start_ns, end_ns = read(given, "query.startTimeMin", read_moment), read(given, "query.startTimeMax", read_moment)
    return _build(given, V3_NAMES, start_ns, end_ns)


def read_operations(parameters: Parameters, *, is_v3: bool) -> tuple[str, str | None]:
    """The service, and the kind of spans whose names are wanted; None: of all."""
    spelled = in_todays_spelling(parameters, OPERATION_PARAMETERS) if is_v3 else parameters
    given = collect(spelled, OPERATION_PARAMETERS)
    service, kind = read(given, "service", read_text), read(given, "spanKind", read_text)
    if service is None:
        raise MissingParameter("Name the service whose operations are wanted.", param="service")
    if kind is not None and kind not in KINDS:
        raise wrong("spanKind", kind, f"one of {', '.join(KINDS)}")
    return service, kind


def check_get(parameters: Parameters) -> None:
    """Raise for a parameter of GET /api/traces/{trace_id} that cannot be read."""
    given = collect(parameters, GET_PARAMETERS)
    read(given, "start", read_microseconds)
    read(given, "end", read_microseconds)
    read(given, "raw", read_bool)


def check_get_v3(parameters: Parameters) -> None:
    """The same for GET /api/v3/traces/{trace_id}."""
    given = collect(in_todays_spelling(parameters, GET_PARAMETERS_V3), GET_PARAMETERS_V3)
    read(given, "startTime", read_moment)
    read(given, "endTime", read_moment)
    read(given, "rawTraces", read_bool)


def check_dependencies(parameters: Parameters) -> None:
    """The same for GET /api/dependencies."""
    given = collect(parameters, DEPENDENCY_PARAMETERS)
    read(given, "endTs", read_whole)
    read(given, "lookback", read_whole)


def is_pretty(parameters: Parameters) -> bool:
    """Whether the JSON is for people."""
    texts = [value for name, value in parameters if name == PRETTY and value]
    return bool(texts) and read_bool(texts[0], PRETTY)


def _build(given: Given, names: Mapping[str, str], start_ns: int | None, end_ns: int | None) -> TraceSearch:
    """`names` are those of the parameters that both APIs have."""
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise InvalidValue("The end of the search is before its start.", param="end")
    min_ns = read(given, names["minDuration"], read_duration)
    max_ns = read(given, names["maxDuration"], read_duration)
    if min_ns is not None and max_ns is not None and max_ns < min_ns:
        raise InvalidValue("The longest duration is below the shortest.", param=names["maxDuration"])
    limit = read(given, names["limit"], read_whole)
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        raise wrong(names["limit"], str(limit), f"a number from 1 to {MAX_LIMIT}")
    read(given, names["raw"], read_bool)
    tags: dict[str, str] = {}
    for text in given.get(names["tags"], []):
        tags |= read_tags(text, names["tags"])
    return TraceSearch(
        service=read(given, names["service"], read_text),
        operation=read(given, names["operation"], read_text),
        start_ns=start_ns,
        end_ns=end_ns,
        min_ns=min_ns,
        max_ns=max_ns,
        tags=tags,
        limit=limit or DEFAULT_LIMIT,
    )


def _is_between(value: int, least: int | None, most: int | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)
