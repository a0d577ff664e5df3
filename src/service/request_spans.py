"""Makes the child spans of a request from the engine's record, after the fact; knows no exporter, no HTTP.

The engine's step path pays nothing for it. Times are the machine's monotonic clock, which engine and worker share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import structlog
from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from contracts.errors import QuireError
from contracts.explanation import Phase
from contracts.records import SampleRecord, StepLink
from service import genai
from service.clocks import unix_offset_ns
from service.generation_stream import GenerationStream
from service.why import main_cause, phases

GAP_NS = 1000
"""Each phase ends so long before the next begins: Jaeger's critical path passes over phases that touch."""
SCOPE = "quire.requests"

_pending: set[asyncio.Task[None]] = set()
"""Kept until they are done, as the event loop holds tasks weakly."""
_log = structlog.get_logger("service.tracing")


class SpanHead(msgspec.Struct, frozen=True, kw_only=True):
    """What the reply knows of itself at its end."""

    response_id: str
    model: str
    is_stream: bool
    first_text_s: float | None
    """From the arrival of the request to the first text of its stream."""
    content: dict[str, str]
    """The texts, where they are wanted."""
    error_type: str | None


def unix_ns(monotonic_s: float, offset_ns: int) -> int:
    """Unix time in nanoseconds of a moment of the monotonic clock."""
    return int(monotonic_s * 1e9) + offset_ns


def current_trace_id() -> str:
    """32 hex digits; empty where no span runs."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


class RequestSpan:
    """What the server span of one request is told when its reply is over. Owner: the reply.

    The span is taken when this is made, inside the request; without an exporter nothing is done.
    """

    def __init__(self, operation: str) -> None:
        self._span = trace.get_current_span()
        self._operation = operation
        self._first_sent_s: float | None = None
        self._later: asyncio.Task[None] | None = None

    def begin_sending(self) -> None:
        """The first text is about to be sent."""
        if self._first_sent_s is None:
            self._first_sent_s = time.monotonic()

    def end(self, generation: GenerationStream, head: SpanHead) -> None:
        """Describe the span, and make its children; those of a request that was cut off come a moment later."""
        if not self._span.is_recording():
            return
        self._span.set_attributes({**describe(self._operation, generation, head), **head.content})
        if self._first_sent_s is not None:
            offset_ns = unix_offset_ns()
            reply = self._start("reply", unix_ns(self._first_sent_s, offset_ns), {})
            reply.end(unix_ns(time.monotonic(), offset_ns))
        if len(generation.records) == generation.num_choices:
            self._emit(generation.records)
        else:
            self._later = asyncio.create_task(self._emit_later(generation))
            _pending.add(self._later)
            self._later.add_done_callback(_pending.discard)

    async def _emit_later(self, generation: GenerationStream) -> None:
        try:
            self._emit(await generation.all_records())
        except QuireError as error:
            _log.info("phases_unknown", reason=error.message)

    def _emit(self, records: Iterable[SampleRecord]) -> None:
        """One child for each phase of each sample."""
        offset_ns = unix_offset_ns()
        for record in records:
            for phase, start_ns, end_ns in timed(record, offset_ns):
                within = (link for link in record.step_links if start_ns <= unix_ns(link.at_s, offset_ns) < end_ns)
                links = [_link_to(link) for link in within]
                self._start(phase.name, start_ns, phase_attributes(phase), links).end(end_ns)

    def _start(
        self, name: str, start_ns: int, attributes: Mapping[str, AttributeValue], links: Sequence[trace.Link] = ()
    ) -> trace.Span:
        context = trace.set_span_in_context(self._span)
        tracer = trace.get_tracer(SCOPE)
        return tracer.start_span(name, context, attributes=attributes, links=links, start_time=start_ns)


def _link_to(link: StepLink) -> trace.Link:
    """To the span of a step that the request took part in."""
    context = trace.SpanContext(int(link.trace_id, 16), int(link.span_id, 16), True, trace.TraceFlags(1))
    return trace.Link(context, {"quire.link": "engine step"})


def describe(operation: str, generation: GenerationStream, head: SpanHead) -> dict[str, AttributeValue]:
    """The GenAI attributes of a request: numbers, names and ids, never text."""
    request, usage = generation.request, generation.usage()
    sampling = request.sampling
    attributes: dict[str, AttributeValue | None] = {
        genai.OPERATION_NAME: operation,
        genai.PROVIDER_NAME: genai.PROVIDER,
        genai.REQUEST_MODEL: head.model,
        genai.RESPONSE_MODEL: head.model,
        genai.RESPONSE_ID: head.response_id,
        genai.REQUEST_STREAM: head.is_stream,
        genai.REQUEST_MAX_TOKENS: sampling.max_tokens,
        genai.REQUEST_TEMPERATURE: sampling.temperature,
        genai.REQUEST_TOP_P: sampling.top_p,
        genai.REQUEST_SEED: sampling.seed,
        genai.REQUEST_CHOICE_COUNT: generation.num_choices,
        genai.RESPONSE_FINISH_REASONS: generation.finish_reasons,
        genai.USAGE_INPUT_TOKENS: usage.prompt_tokens,
        genai.USAGE_OUTPUT_TOKENS: usage.completion_tokens,
        genai.USAGE_CACHE_READ_INPUT_TOKENS: usage.prompt_tokens_details.cached_tokens,
        genai.RESPONSE_TIME_TO_FIRST_CHUNK: head.first_text_s,
        genai.ERROR_TYPE: head.error_type,
    }
    if generation.records:
        attributes["quire.main_cause"] = main_cause(min(generation.records, key=lambda record: record.sample_index))
    return {name: value for name, value in attributes.items() if value is not None}


def phase_attributes(phase: Phase) -> dict[str, int | float | str]:
    """What a phase's span says of it."""
    return {f"quire.{name}": value for name, value in phase.details.items()} | {"quire.sample": phase.sample}


def timed(record: SampleRecord, offset_ns: int) -> Iterator[tuple[Phase, int, int]]:
    """The phases of a sample with Unix nanoseconds: in order, GAP_NS apart; those without length fall out."""
    found = list(phases(record, record.submitted_s))
    for index, phase in enumerate(found):
        end_ms = (record.latest_s - record.submitted_s) * 1e3 if phase.end_ms is None else phase.end_ms
        if index + 1 < len(found):
            end_ms = min(end_ms, found[index + 1].start_ms)
        start_ns = unix_ns(record.submitted_s + phase.start_ms / 1e3, offset_ns)
        end_ns = unix_ns(record.submitted_s + end_ms / 1e3, offset_ns) - GAP_NS
        if end_ns > start_ns:
            yield phase, start_ns, end_ns
