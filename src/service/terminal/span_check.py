"""Sends one span as the server would send its own, and sees whether it arrives.

Without a collector, a receiver in this process takes it: that proves everything but the network behind it. With
Jaeger's address, the span is looked for there as well.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from contracts.checkup import Finding
from contracts.settings import ServerSettings
from service.terminal.examination import found
from service.tracing import check_tracing, is_wanted, new_resource, protocol_of, span_exporter

SPAN_NAME = "quire doctor"
EXPORT_TIMEOUT_S = 3.0
JAEGER_WAIT_S = 4.0
_LOGGER = "opentelemetry"
_SYSTEM_ERROR = re.compile(r"\[Errno -?[0-9]+\] ([^\"')]+)")


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """How one span was taken."""

    trace_id: str
    is_taken: bool
    reason: str
    """What the exporter complained of, if anything."""
    took_s: float


def check_traces(settings: ServerSettings) -> Finding:
    """Through the collector that is configured, else through one of our own."""
    if not is_wanted(settings):
        return _check_own_path(settings)
    check_tracing(settings)
    sent = send_span(settings)
    place = settings.otlp_endpoint or "the collector of OTEL_EXPORTER_OTLP_ENDPOINT"
    protocol = protocol_of(settings)
    numbers: dict[str, str | float] = {"trace_id": sent.trace_id, "export_s": sent.took_s, "protocol": protocol}
    if not sent.is_taken:
        remedy = "Start the collector, or correct --otlp-endpoint or --otlp-protocol; serving works without it."
        return found("failed", f"{place} did not take a test span: {sent.reason}.", remedy, **numbers)
    told = f"{place} took a test span over {protocol} in {sent.took_s * 1000:.0f} ms"
    if settings.jaeger_url is None:
        return found("ok", f"{told}.", **numbers)
    if _is_in_jaeger(settings.jaeger_url, sent.trace_id):
        return found("ok", f"{told}, and Jaeger at {settings.jaeger_url} shows it.", **numbers)
    return found(
        "warning",
        f"{told}, but Jaeger at {settings.jaeger_url} did not show it within {JAEGER_WAIT_S:g} s.",
        "Check --jaeger-url, and that the collector sends its spans to that Jaeger.",
        **numbers,
    )


def _check_own_path(settings: ServerSettings) -> Finding:
    from service.terminal.otlp_receiver import running_receiver

    with running_receiver() as receiver:
        own = msgspec.structs.replace(settings, otlp_endpoint=receiver.address, otlp_protocol="http/protobuf")
        sent = send_span(own)
        is_back = any(span.trace_id == sent.trace_id and span.name == SPAN_NAME for span in receiver.spans)
    if is_back:
        told = f"a test span was read back from a receiver of ours in {sent.took_s * 1000:.0f} ms"
        return found(
            "ok",
            f"No collector is configured; {told}.",
            trace_id=sent.trace_id,
            export_s=sent.took_s,
        )
    return found(
        "warning",
        f"A test span did not reach a receiver on this machine: {sent.reason or 'it came without its trace id'}.",
        "If HTTP_PROXY is set, put 127.0.0.1 into NO_PROXY.",
    )


def send_span(settings: ServerSettings) -> Export:
    """Make a span and export it at once, within EXPORT_TIMEOUT_S."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult

    provider = TracerProvider(resource=new_resource())
    span: Any = provider.get_tracer("quire.doctor").start_span(SPAN_NAME)
    span.end()
    started_s = time.monotonic()
    with _complaints() as complaints:
        exporter = span_exporter(settings, EXPORT_TIMEOUT_S)
        result = exporter.export([span])
        exporter.shutdown()
    provider.shutdown()
    return Export(
        trace_id=f"{span.get_span_context().trace_id:032x}",
        is_taken=result is SpanExportResult.SUCCESS,
        reason=_reason(complaints),
        took_s=round(time.monotonic() - started_s, 4),
    )


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What OpenTelemetry logs meanwhile, instead of its appearing among the findings."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split())[:600].rstrip("."))

    logger, keeper = logging.getLogger(_LOGGER), Keeper(logging.WARNING)
    was_propagated, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield said
    finally:
        logger.removeHandler(keeper)
        logger.propagate = was_propagated


def _reason(complaints: list[str]) -> str:
    """The first complaint names the cause, those behind it the giving up."""
    if not complaints:
        return "the exporter does not say why"
    cause = _SYSTEM_ERROR.search(complaints[0])
    return cause[1].strip() if cause is not None else complaints[0]


def _is_in_jaeger(url: str, trace_id: str) -> bool:
    import httpx

    deadline_s = time.monotonic() + JAEGER_WAIT_S
    while time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{url.rstrip('/')}/api/traces/{trace_id}", timeout=1.0).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    return False
