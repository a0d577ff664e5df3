"""Sends spans to an OTLP collector, where the settings or the standard OTEL_* variables name one; else does nothing.

The SDK and the exporter are imported only then. Spans are batched in a thread of the SDK's; a collector that is down
costs a warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import structlog

from contracts.settings import ServerSettings
from contracts.version import VERSION

SERVICE_NAME = "quire"
SHUTDOWN_S = 3.0
"""How long the last spans may take at the end."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_log = structlog.get_logger("service.tracing")


def is_wanted(settings: ServerSettings) -> bool:
    """Somebody has named a collector, and has not switched tracing off."""
    is_off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not is_off and (settings.otlp_endpoint is not None or any(os.environ.get(name) for name in _ENDPOINTS))


@contextlib.asynccontextmanager
async def tracing(settings: ServerSettings) -> AsyncIterator[None]:
    """Spans are sent while the context lasts, the last ones at its end."""
    provider = start_tracing(settings) if is_wanted(settings) else None
    try:
        yield
    finally:
        if provider is not None:
            try:
                await asyncio.wait_for(asyncio.to_thread(provider.shutdown), SHUTDOWN_S)
            except TimeoutError:
                _log.warning("spans_lost", reason="the collector did not take the last spans in time")


def service_name() -> str:
    """What traces call this server."""
    return os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME


def start_tracing(settings: ServerSettings) -> Any:
    """Install a TracerProvider for this process that exports over HTTP; returns it."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": service_name(), "service.version": VERSION})
    endpoint = None if settings.otlp_endpoint is None else f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    return provider
