"""Sends spans, and metrics on demand, to an OTLP collector, where the settings or the standard OTEL_* variables name
one; else does nothing.

The SDK and the exporters are imported only then. Spans are batched in a thread of the SDK's; a collector that is down
costs a warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import structlog

from contracts.errors import SettingsError
from contracts.settings import ServerSettings
from contracts.version import VERSION
from service import message_content

SERVICE_NAME = "quire"
SHUTDOWN_S = 3.0
"""How long the last spans may take at the end."""
METRICS_EVERY_MS = 15_000
"""Where OTEL_METRIC_EXPORT_INTERVAL does not say otherwise."""
PROTOCOLS = ("http/protobuf", "grpc")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_log = structlog.get_logger("service.tracing")


def is_wanted(settings: ServerSettings) -> bool:
    """Somebody has named a collector, and has not switched tracing off."""
    is_off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not is_off and (settings.otlp_endpoint is not None or any(os.environ.get(name) for name in _ENDPOINTS))


def protocol_of(settings: ServerSettings) -> str:
    """How the collector is spoken to."""
    said = (os.environ.get(name) for name in _PROTOCOL_VARIABLES)
    return settings.otlp_protocol or next(filter(None, said), PROTOCOLS[0])


def check_tracing(settings: ServerSettings) -> None:
    """Raise SettingsError where a collector is named that could not be spoken to."""
    if not is_wanted(settings):
        return
    protocol = protocol_of(settings)
    if protocol not in PROTOCOLS:
        raise SettingsError(
            f"The OTLP protocol is '{protocol}' ({' or '.join(_PROTOCOL_VARIABLES)}); there are "
            f"{' and '.join(PROTOCOLS)}."
        )
    if protocol == "grpc" and find_spec("grpc") is None:
        raise SettingsError(
            "OTLP over gRPC needs packages that are not installed. Install them with `pip install 'quire[grpc]'`, or "
            "use --otlp-protocol http/protobuf."
        )


@contextlib.asynccontextmanager
async def tracing(settings: ServerSettings) -> AsyncIterator[None]:
    """Spans are sent while the context lasts, the last ones at its end."""
    providers = start_tracing(settings)
    try:
        yield
    finally:
        await stop_tracing(providers)


async def stop_tracing(providers: list[Any]) -> None:
    """Send what has not been sent, within SHUTDOWN_S."""
    try:
        endings = [asyncio.to_thread(provider.shutdown) for provider in providers]
        await asyncio.wait_for(asyncio.gather(*endings), SHUTDOWN_S)
    except TimeoutError:
        _log.warning("spans_lost", reason="the collector did not take the last spans in time")


def service_name() -> str:
    """What traces call this server."""
    return os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME


def start_tracing(settings: ServerSettings) -> list[Any]:
    """Install the SDK's providers for this process, where they are wanted; returns what must be stopped."""
    if not is_wanted(settings):
        return []
    if message_content.is_wanted(settings):
        _log.warning("texts_are_traced", setting="trace_content")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = new_resource()
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(span_exporter(settings)))
    trace.set_tracer_provider(provider)
    return [provider, _start_metrics(settings, resource)] if settings.otlp_metrics else [provider]


def new_resource() -> Any:
    """Who sends the spans of this process."""
    from opentelemetry.sdk.resources import Resource

    instance = f"{os.uname().nodename}-{os.getpid()}"
    return Resource.create(
        {"service.name": service_name(), "service.version": VERSION, "service.instance.id": instance},
    )


def _start_metrics(settings: ServerSettings, resource: Any) -> Any:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    interval_ms = None if os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") else METRICS_EVERY_MS
    reader = PeriodicExportingMetricReader(_metric_exporter(settings), export_interval_millis=interval_ms)
    provider = MeterProvider([reader], resource)
    metrics.set_meter_provider(provider)
    return provider


def span_exporter(settings: ServerSettings, timeout_s: float | None = None) -> Any:
    """What sends spans to the collector; None: an export may take as long as the variables or the SDK say."""
    if protocol_of(settings) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=settings.otlp_endpoint, timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=_http_endpoint(settings, "traces"), timeout=timeout_s)


def _metric_exporter(settings: ServerSettings) -> Any:
    if protocol_of(settings) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(endpoint=settings.otlp_endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=_http_endpoint(settings, "metrics"))


def _http_endpoint(settings: ServerSettings, signal: str) -> str | None:
    """None: the exporter reads the standard variables."""
    return None if settings.otlp_endpoint is None else f"{settings.otlp_endpoint.rstrip('/')}/v1/{signal}"
