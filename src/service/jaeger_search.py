"""Reads what the engine remembers, in pages, and finds the traces that are looked for; knows no HTTP."""

from __future__ import annotations

from itertools import islice

import msgspec

from contracts.records import RecordQuery, RequestRecord
from contracts.version import VERSION
from service.all_records import RecordSource
from service.jaeger_query import TraceSearch
from service.jaeger_spans import RequestTrace, Viewpoint, group_by_trace, make_trace
from service.tracing import service_name

PAGE_LEN = 100
"""Records in one answer of the engine, which makes them between two steps."""
MAX_RECORDS = 2_500
"""The engine remembers 1024 requests that have ended, and by default as many may wait."""
MAX_SPANS = 10_000
"""In one answer that shows whole traces."""
_SERVICE_TAGS = {"service.version": VERSION}


async def read_records(source: RecordSource, query: RecordQuery) -> list[RequestRecord]:
    """All that the query means, page by page, so that no step waits for a long answer; the newest MAX_RECORDS."""
    found: dict[str, RequestRecord] = {}
    while len(found) < MAX_RECORDS:
        page = await source.records(msgspec.structs.replace(query, limit=PAGE_LEN))
        num_known = len(found)
        found |= {record.request_id: record for record in page}
        if len(page) < PAGE_LEN or len(found) == num_known:
            break
        query = msgspec.structs.replace(query, latest_submitted_s=page[-1].submitted_s)
    return list(found.values())


def find_traces(records: list[RequestRecord], search: TraceSearch, viewpoint: Viewpoint) -> list[RequestTrace]:
    """Those that are meant, the newest first, as many as are asked for."""
    service = service_name()
    traces = (make_trace(trace_id, group, viewpoint) for trace_id, group in group_by_trace(records).items())
    return list(islice((trace for trace in traces if search.is_met_by(trace, service, _SERVICE_TAGS)), search.limit))


def within_bounds(traces: list[RequestTrace]) -> tuple[list[RequestTrace], int]:
    """The first traces that have MAX_SPANS spans together, at least one, and the number of the others."""
    num_spans = 0
    for index, trace in enumerate(traces):
        num_spans += len(trace.spans)
        if index and num_spans > MAX_SPANS:
            return traces[:index], len(traces) - index
    return traces, 0
