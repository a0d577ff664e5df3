"""The part of the API's description that is Jaeger's; a table, as all its routes are of one form."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from contracts.jaeger import (
    GatewayError,
    JaegerDependencies,
    JaegerFailure,
    JaegerNames,
    JaegerOperations,
    JaegerTraces,
    OperationList,
    OtlpTraces,
    ServiceNames,
    TraceSummaries,
)
from service.jaeger_query import (
    DEFAULT_LIMIT,
    DEPENDENCY_PARAMETERS,
    GET_PARAMETERS,
    GET_PARAMETERS_V3,
    KINDS,
    MAX_LIMIT,
    OPERATION_PARAMETERS,
    SEARCH_PARAMETERS,
    SEARCH_PARAMETERS_V3,
)

_LIMIT: Final = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "limit": _LIMIT,
    "query.searchDepth": _LIMIT,
    "spanKind": {"type": "string", "enum": list(KINDS)},
    "raw": {"type": "boolean"},
    "rawTraces": {"type": "boolean"},
    "query.rawTraces": {"type": "boolean"},
    "prettyPrint": {"type": "boolean"},
}
"""Of parameters that are not any text."""


class JaegerRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One GET."""

    path: str
    operation_id: str
    summary: str
    reply: type[Any]
    parameters: tuple[str, ...] = ()
    parameter: str | None = None
    """In the path."""

    @property
    def query(self) -> dict[str, dict[str, Any]]:
        return {name: _SCHEMAS.get(name, {"type": "string"}) for name in self.parameters}

    @property
    def errors(self) -> dict[int, str]:
        common = {400: "A parameter is refused by name.", 503: "The model is being loaded, or the engine is dead."}
        has_404 = self.parameter == "trace_id" or self.path == "/api/v3/traces"
        return common | ({404: "No such trace is remembered."} if has_404 else {})

    @property
    def error(self) -> type[Any]:
        return GatewayError if self.path.startswith("/api/v3/") else JaegerFailure


JAEGER_ROUTES: Final = (
    JaegerRoute(
        path="/api/services",
        operation_id="listJaegerServices",
        summary="For Jaeger's page and Grafana: the name under which this server's traces are found.",
        reply=JaegerNames,
    ),
    JaegerRoute(
        path="/api/services/{service}/operations",
        operation_id="listJaegerOperationNames",
        summary="The names that spans can have.",
        reply=JaegerNames,
        parameter="service",
    ),
    JaegerRoute(
        path="/api/operations",
        operation_id="listJaegerOperations",
        summary="The same with their kinds.",
        reply=JaegerOperations,
        parameters=OPERATION_PARAMETERS,
    ),
    JaegerRoute(
        path="/api/traces",
        operation_id="searchJaegerTraces",
        summary="Traces of the last requests, the newest first.",
        reply=JaegerTraces,
        parameters=SEARCH_PARAMETERS,
    ),
    JaegerRoute(
        path="/api/traces/{trace_id}",
        operation_id="retrieveJaegerTrace",
        summary="One trace.",
        reply=JaegerTraces,
        parameters=GET_PARAMETERS,
        parameter="trace_id",
    ),
    JaegerRoute(
        path="/api/dependencies",
        operation_id="listJaegerDependencies",
        summary="Which service calls which: none, as there is one.",
        reply=JaegerDependencies,
        parameters=DEPENDENCY_PARAMETERS,
    ),
    JaegerRoute(
        path="/api/v3/services",
        operation_id="listServicesV3",
        summary="The newer form of /api/services.",
        reply=ServiceNames,
    ),
    JaegerRoute(
        path="/api/v3/operations",
        operation_id="listOperationsV3",
        summary="The newer form of /api/operations.",
        reply=OperationList,
        parameters=OPERATION_PARAMETERS,
    ),
    JaegerRoute(
        path="/api/v3/trace-summaries",
        operation_id="searchTraceSummariesV3",
        summary="What Jaeger's search page shows of each trace.",
        reply=TraceSummaries,
        parameters=SEARCH_PARAMETERS_V3,
    ),
    JaegerRoute(
        path="/api/v3/traces",
        operation_id="searchTracesV3",
        summary="Traces of the last requests as OTLP; 404 where there are none.",
        reply=OtlpTraces,
        parameters=SEARCH_PARAMETERS_V3,
    ),
    JaegerRoute(
        path="/api/v3/traces/{trace_id}",
        operation_id="retrieveTraceV3",
        summary="One trace as OTLP.",
        reply=OtlpTraces,
        parameters=GET_PARAMETERS_V3,
        parameter="trace_id",
    ),
)
