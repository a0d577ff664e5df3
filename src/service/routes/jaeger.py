"""GET /api/... and /api/v3/...: what Jaeger's page and Grafana's Jaeger data source ask of a query service.

The traces are made on the spot of the requests that the engine remembers. A key sees its own requests; one with the
scope 'admin' sees all. Failures have the shape that the asking program expects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.params import FromPath

from contracts.errors import InvalidValue, QuireError, clip
from contracts.jaeger import (
    GatewayError,
    GatewayErrorDetails,
    JaegerDependencies,
    JaegerError,
    JaegerFailure,
    JaegerNames,
    JaegerOperations,
    JaegerTraces,
    Operation,
    OperationList,
    OtlpTraces,
    ServiceNames,
    TraceSummaries,
)
from contracts.records import RecordQuery, RequestRecord
from service.all_records import AllRecords
from service.clocks import unix_offset_ns
from service.engine_provider import ModelProvider
from service.error_responses import error_headers, handle_quire_error
from service.http_errors import NotFound
from service.jaeger_json import jaeger_trace, otlp_traces, trace_summary
from service.jaeger_parameters import Parameters, collect, read_trace_id
from service.jaeger_query import (
    TraceSearch,
    check_dependencies,
    check_get,
    check_get_v3,
    is_pretty,
    read_operations,
    read_search,
    read_search_v3,
)
from service.jaeger_search import MAX_SPANS, find_traces, read_records, within_bounds
from service.jaeger_spans import RequestTrace, Viewpoint, group_by_trace, make_trace, operations, trace_id_of
from service.routes.requests import visible_tenant
from service.tracing import service_name

_HEADERS = {"cache-control": "no-store"}

AnyRequest = Request[Any, Any, Any]


@get("/services")
async def list_services(request: AnyRequest) -> Response[bytes]:
    """The one service that there is."""
    collect(_parameters(request), ())
    return _reply(JaegerNames(data=[service_name()], total=1))


@get("/services/{service:str}/operations")
async def list_operation_names(request: AnyRequest, service: FromPath[str]) -> Response[bytes]:
    """The names that its spans can have."""
    collect(_parameters(request), ())
    names = [operation.name for operation in _operations(request, service, None)]
    return _reply(JaegerNames(data=names, total=len(names)))


@get("/operations")
async def list_operations(request: AnyRequest) -> Response[bytes]:
    """The same with their kinds."""
    found = _operations(request, *read_operations(_parameters(request), is_v3=False))
    return _reply(JaegerOperations(data=found, total=len(found)))


@get("/traces")
async def search_traces(request: AnyRequest) -> Response[bytes]:
    """The traces that are looked for, the newest first."""
    parameters = _parameters(request)
    search = read_search(parameters, time.monotonic_ns() + unix_offset_ns())

    def tell(traces: list[RequestTrace]) -> JaegerTraces:
        shown, num_over = within_bounds(traces)
        over = JaegerError(msg=f"{num_over} traces are left out: an answer has at most {MAX_SPANS} spans.")
        found = [jaeger_trace(trace, service_name()) for trace in shown]
        return JaegerTraces(data=found, errors=[over] if num_over else None)

    return await _search(request, search, tell, indent=4 if is_pretty(parameters) else None)


@get("/traces/{trace_id:str}")
async def retrieve_trace(request: AnyRequest, trace_id: FromPath[str]) -> Response[bytes]:
    """One trace."""
    parameters = _parameters(request)
    check_get(parameters)
    indent = 4 if is_pretty(parameters) else None
    return await _retrieve(
        request, trace_id, lambda trace: JaegerTraces(data=[jaeger_trace(trace, service_name())]), indent=indent
    )


@get("/dependencies")
async def list_dependencies(request: AnyRequest) -> Response[bytes]:
    """None: it is one service, and who calls it is not remembered."""
    check_dependencies(_parameters(request))
    return _reply(JaegerDependencies(data=[]))


@get("/v3/services")
async def list_services_v3(request: AnyRequest) -> Response[bytes]:
    """The one service that there is."""
    collect(_parameters(request), ())
    return _reply(ServiceNames(services=[service_name()]))


@get("/v3/operations")
async def list_operations_v3(request: AnyRequest) -> Response[bytes]:
    """The names that its spans can have."""
    return _reply(OperationList(operations=_operations(request, *read_operations(_parameters(request), is_v3=True))))


@get("/v3/trace-summaries")
async def search_summaries(request: AnyRequest) -> Response[bytes]:
    """The lines of the search page."""

    def tell(traces: list[RequestTrace]) -> TraceSummaries:
        return TraceSummaries(summaries=[trace_summary(trace, service_name()) for trace in traces])

    return await _search(request, read_search_v3(_parameters(request)), tell)


@get("/v3/traces")
async def search_traces_v3(request: AnyRequest) -> Response[bytes]:
    """The traces that are looked for, as OTLP; 404 where there are none, as Jaeger has it."""

    def tell(traces: list[RequestTrace]) -> OtlpTraces:
        shown, num_over = within_bounds(traces)
        if num_over:
            raise InvalidValue(
                f"These {len(traces)} traces have more than {MAX_SPANS} spans; ask for at most {len(shown)}.",
                param="query.searchDepth",
            )
        if not shown:
            raise NotFound("No traces found.")
        return otlp_traces(shown, service_name())

    return await _search(request, read_search_v3(_parameters(request)), tell)


@get("/v3/traces/{trace_id:str}")
async def retrieve_trace_v3(request: AnyRequest, trace_id: FromPath[str]) -> Response[bytes]:
    """One trace, as OTLP."""
    check_get_v3(_parameters(request))
    return await _retrieve(request, trace_id, lambda trace: otlp_traces([trace], service_name()))


def handle_error(request: AnyRequest, error: QuireError) -> Response[bytes]:
    """Litestar handler: a failure in the words that the page shows."""
    logged = handle_quire_error(request, error)
    status = logged.status_code or error.status
    body: msgspec.Struct = JaegerFailure(errors=[JaegerError(code=status, msg=error.message)])
    if request.url.path.startswith("/api/v3/"):
        body = GatewayError(error=GatewayErrorDetails(http_code=status, message=error.message))
    return Response(
        msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON, headers=error_headers(error)
    )


async def _search(
    request: AnyRequest,
    search: TraceSearch,
    tell: Callable[[list[RequestTrace]], msgspec.Struct],
    *,
    indent: int | None = None,
) -> Response[bytes]:
    viewpoint = _viewpoint(request)
    records = await _records(request, None)
    # A thousand records with all their phases are tens of milliseconds of work.
    return await asyncio.to_thread(lambda: _reply(tell(find_traces(records, search, viewpoint)), indent))


async def _retrieve(
    request: AnyRequest,
    trace_id: str,
    tell: Callable[[RequestTrace], msgspec.Struct],
    *,
    indent: int | None = None,
) -> Response[bytes]:
    wanted = read_trace_id(trace_id, "traceID")
    viewpoint = _viewpoint(request)
    records = await _records(request, wanted)
    if not records:  # a record without a trace of its own has an id that the engine does not know
        records = [record for record in await _records(request, None) if trace_id_of(record) == wanted]
    if not records:
        raise NotFound(
            f"trace not found: '{clip(trace_id)}' is none of yours, it never reached the engine, or it is older than "
            "the last thousand requests."
        )
    return await asyncio.to_thread(
        lambda: _reply(tell(make_trace(wanted, group_by_trace(records)[wanted], viewpoint)), indent)
    )


async def _records(request: AnyRequest, any_id: str | None) -> list[RequestRecord]:
    provider: ModelProvider = request.app.state["provider"]
    return await read_records(AllRecords(provider), RecordQuery(any_id=any_id, tenant=visible_tenant(request)))


def _viewpoint(request: AnyRequest) -> Viewpoint:
    return Viewpoint(
        offset_ns=unix_offset_ns(),
        is_all_shown=visible_tenant(request) is None,
    )


def _operations(request: AnyRequest, service: str, kind: str | None) -> list[Operation]:
    """Of another service: none."""
    provider: ModelProvider = request.app.state["provider"]
    known = operations(provider.catalog.aliases) if service == service_name() else []
    return [Operation(name=name, span_kind=span_kind) for name, span_kind in known if kind in (None, span_kind)]


def _parameters(request: AnyRequest) -> Parameters:
    return list(request.query_params.multi_items())


def _reply(body: msgspec.Struct, indent: int | None = None) -> Response[bytes]:
    encoded = msgspec.json.encode(body)
    content = encoded if indent is None else msgspec.json.format(encoded, indent=indent)
    return Response(content, media_type=MediaType.JSON, headers=_HEADERS)


HANDLERS = (
    Router(
        path="/api",
        route_handlers=[
            list_services,
            list_operation_names,
            list_operations,
            search_traces,
            retrieve_trace,
            list_dependencies,
            list_services_v3,
            list_operations_v3,
            search_summaries,
            search_traces_v3,
            retrieve_trace_v3,
        ],
        exception_handlers={QuireError: handle_error},
    ),
)
