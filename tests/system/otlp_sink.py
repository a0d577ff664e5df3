"""An OTLP collector in a thread, over HTTP or gRPC: keeps every span and every metric that it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import msgspec
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


class SinkSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One span as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    is_error: bool
    links: list[tuple[str, str]]
    """Trace id and span id."""


class SinkPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a histogram as it arrived."""

    name: str
    attributes: dict[str, Any]
    count: int


class OtlpSink:
    """`spans` and `points` grow as batches arrive."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.spans: list[SinkSpan] = []
        self.points: list[SinkPoint] = []

    def named(self, name: str) -> list[SinkSpan]:
        """All spans of a name."""
        return [span for span in self.spans if span.name == name]

    def children_of(self, span: SinkSpan) -> list[SinkSpan]:
        """In the order of their beginnings."""
        children = [one for one in self.spans if one.parent_id == span.span_id]
        return sorted(children, key=lambda one: one.start_ns)

    def roots(self) -> list[SinkSpan]:
        """Spans that no other span here has as a child."""
        known = {span.span_id for span in self.spans}
        return [span for span in self.spans if span.parent_id not in known]


def points_of(body: bytes) -> Iterator[SinkPoint]:
    """The points of one export of histograms."""
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.histogram.data_points:
                    attributes = {one.key: value_of(one.value) for one in point.attributes}
                    yield SinkPoint(name=metric.name, attributes=attributes, count=point.count)


def spans_of(request: ExportTraceServiceRequest) -> Iterator[SinkSpan]:
    """The spans of one export."""
    for resource in request.resource_spans:
        service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield SinkSpan(
                    service=service,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes={one.key: value_of(one.value) for one in span.attributes},
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                )


def value_of(value: Any) -> Any:
    """A protobuf AnyValue as a Python value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def running_sink() -> Iterator[OtlpSink]:
    """Listens on a free port of the loopback while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/metrics":
                sink.points.extend(points_of(body))
            else:
                sink.spans.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the base class)
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sink = OtlpSink(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield sink
        server.shutdown()
        thread.join()


@contextmanager
def running_grpc_sink() -> Iterator[OtlpSink]:
    """The same for spans over gRPC."""

    class Servicer(TraceServiceServicer):
        def Export(self, request: Any, context: object) -> Any:  # noqa: N802 (its name in the protocol)
            sink.spans.extend(spans_of(request))
            return ExportTraceServiceResponse()

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
        sink = OtlpSink(server.add_insecure_port("127.0.0.1:0"))
        server.start()
        yield sink
        server.stop(None).wait()
