"""Makes traces of the engine's records: a span for each HTTP request, and below it the phases of its samples.

Pure. Ids come from the records alone, so that two looks at a trace show the same spans. Knows no wire format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from contracts.finish_reason import FinishReason
from contracts.records import RequestRecord, SampleRecord
from service import genai
from service.request_spans import GAP_NS, phase_attributes, timed, unix_ns
from service.why import main_cause, status_of, with_own_ids_only

MAX_SPANS_PER_TRACE = 2_000
"""Phases beyond are counted only; the spans of requests are all there, at most as many as the engine remembers."""
DEFAULT_OPERATION = "text_completion"
"""Of ids that no route of OpenAI's makes: whatever was asked, the engine continued a text."""
PHASES = ("decode", "prefill", "preempted", "queue")
REQUEST_KIND, PHASE_KIND = "server", "internal"

_ERROR_TYPES = {FinishReason.ERROR: "500", FinishReason.LOST: "503", FinishReason.DEADLINE: "503"}
"""As the server span has it. An abort is no error: a client that left and a stop string look alike to the engine."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_ONE_OF_SEVERAL = re.compile(r"(.*[0-9a-f]{32})-[0-9]+")

AttributeValue = str | bool | int | float | list[str]


class TraceSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A request, or a phase of it."""

    span_id: str
    """16 hex digits."""
    parent_id: str | None
    """None: a request."""
    name: str
    start_ns: int
    """Unix time."""
    end_ns: int
    attributes: dict[str, AttributeValue]
    is_error: bool = False

    @property
    def kind(self) -> str:
        return REQUEST_KIND if self.parent_id is None else PHASE_KIND


class RequestTrace(msgspec.Struct, frozen=True, kw_only=True):
    """All that is remembered of one trace."""

    trace_id: str
    """32 hex digits."""
    spans: list[TraceSpan]
    """Never empty; the requests in the order of their beginnings, each followed by its phases."""
    num_left_out: int = 0
    """Phases over MAX_SPANS_PER_TRACE."""

    @property
    def start_ns(self) -> int:
        return min(span.start_ns for span in self.spans)

    @property
    def end_ns(self) -> int:
        return max(span.end_ns for span in self.spans)


class Viewpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What records do not say."""

    offset_ns: int
    """From the monotonic clock to Unix time."""
    is_all_shown: bool
    """Otherwise requests of other keys have no ids."""


def operations(models: Iterable[str]) -> list[tuple[str, str]]:
    """Every name that a span can have, with its kind."""
    kinds = sorted(set(genai.OPERATIONS.values()))
    requests = [(f"{operation} {model}", REQUEST_KIND) for model in models for operation in kinds]
    return requests + [(phase, PHASE_KIND) for phase in PHASES]


def group_by_trace(records: Iterable[RequestRecord]) -> dict[str, list[RequestRecord]]:
    """Trace id, to its records in the order of their beginnings; the trace that began last comes first."""
    groups: dict[str, list[RequestRecord]] = {}
    for record in sorted(records, key=lambda record: record.submitted_s):
        groups.setdefault(trace_id_of(record), []).append(record)
    return dict(sorted(groups.items(), key=lambda group: group[1][0].submitted_s, reverse=True))


def trace_id_of(record: RequestRecord) -> str:
    """The W3C trace id; where the record has none, one that follows from the reply's id."""
    match = _TRACEPARENT.fullmatch(record.traceparent)
    return match[1] if match else _hash("trace", reply_id_of(record))[:32]


def reply_id_of(record: RequestRecord) -> str:
    """The id of the HTTP reply: with several prompts each has its own request in the engine."""
    match = _ONE_OF_SEVERAL.fullmatch(record.request_id)
    return match[1] if match else record.request_id


def make_trace(trace_id: str, records: Sequence[RequestRecord], viewpoint: Viewpoint) -> RequestTrace:
    """The trace of records that share its id, in the order of their beginnings."""
    replies: dict[str, list[RequestRecord]] = {}
    for record in records:
        shown = record if viewpoint.is_all_shown else with_own_ids_only(record)
        replies.setdefault(reply_id_of(record), []).append(shown)
    room = max(0, MAX_SPANS_PER_TRACE - len(replies))
    spans: list[TraceSpan] = []
    span_ids: set[str] = set()
    num_left_out = 0
    for reply_id, siblings in replies.items():
        span_id = _request_span_id(trace_id, reply_id, siblings[0], span_ids)
        span_ids.add(span_id)
        phases = _phases(trace_id, span_id, siblings, viewpoint.offset_ns)
        kept = list(islice(phases, room))
        num_over = sum(1 for _ in phases)
        spans += [_request_span(span_id, reply_id, siblings, kept, viewpoint), *kept]
        room -= len(kept)
        num_left_out += num_over
    return RequestTrace(trace_id=trace_id, spans=spans, num_left_out=num_left_out)


def _request_span_id(trace_id: str, reply_id: str, record: RequestRecord, taken: set[str]) -> str:
    """The server span's own id; a hash where there is none, or where two requests claim the same."""
    match = _TRACEPARENT.fullmatch(record.traceparent)
    if match and match[2] not in taken:
        return match[2]
    return _hash(trace_id, reply_id)[:16]


def _request_span(
    span_id: str, reply_id: str, records: list[RequestRecord], phases: list[TraceSpan], viewpoint: Viewpoint
) -> TraceSpan:
    """Around all its phases; what still runs ends with the last that is known of it."""
    begin_ns = unix_ns(min(record.submitted_s for record in records), viewpoint.offset_ns)
    latest_s = max(sample.latest_s for record in records for sample in record.samples)
    ends_ns = [unix_ns(latest_s, viewpoint.offset_ns), begin_ns, *(phase.end_ns + GAP_NS for phase in phases)]
    operation = _operation_of(reply_id)
    attributes = _describe(operation, reply_id, records)
    return TraceSpan(
        span_id=span_id,
        parent_id=None,
        name=f"{operation} {records[0].model}",
        start_ns=min([begin_ns, *(phase.start_ns for phase in phases)]),
        end_ns=max(ends_ns),
        attributes=attributes,
        is_error=genai.ERROR_TYPE in attributes,
    )


def _operation_of(reply_id: str) -> str:
    found = (operation for prefix, operation in genai.OPERATION_OF_ID.items() if reply_id.startswith(prefix))
    return next(found, DEFAULT_OPERATION)


def _describe(operation: str, reply_id: str, records: list[RequestRecord]) -> dict[str, AttributeValue]:
    """As the server span is described, as far as the records reach."""
    samples = [sample for record in records for sample in sorted(record.samples, key=lambda one: one.sample_index)]
    firsts = [min(record.samples, key=lambda sample: sample.sample_index) for record in records]
    submitted_s = min(record.submitted_s for record in records)
    first_tokens_s = [sample.first_token_s for sample in samples if sample.first_token_s is not None]
    error_types = [_ERROR_TYPES[sample.finish_reason] for sample in samples if sample.finish_reason in _ERROR_TYPES]
    attributes: dict[str, AttributeValue | None] = {
        genai.OPERATION_NAME: operation,
        genai.PROVIDER_NAME: genai.PROVIDER,
        genai.REQUEST_MODEL: records[0].model,
        genai.RESPONSE_MODEL: records[0].model,
        genai.RESPONSE_ID: reply_id,
        genai.REQUEST_CHOICE_COUNT: sum(record.num_samples for record in records),
        genai.RESPONSE_FINISH_REASONS: [one.finish_reason.value for one in samples if one.finish_reason is not None],
        genai.USAGE_INPUT_TOKENS: sum(first.num_prompt_tokens for first in firsts),
        genai.USAGE_OUTPUT_TOKENS: sum(sample.num_output_tokens for sample in samples),
        genai.USAGE_CACHE_READ_INPUT_TOKENS: sum(first.num_cached_tokens for first in firsts),
        genai.RESPONSE_TIME_TO_FIRST_CHUNK: round(min(first_tokens_s) - submitted_s, 6) if first_tokens_s else None,
        genai.ERROR_TYPE: error_types[0] if error_types else None,
        "quire.request_id": records[0].client_request_id or None,
        "quire.key": records[0].tenant or None,
        "quire.status": ", ".join(sorted({status_of(record) for record in records})),
        "quire.main_cause": main_cause(firsts[0]),
        "quire.preemptions": sum(sample.num_preemptions for sample in samples),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _phases(trace_id: str, parent_id: str, records: list[RequestRecord], offset_ns: int) -> Iterator[TraceSpan]:
    """Of every sample of every prompt."""
    for record in records:
        for sample in record.samples:
            yield from _phases_of(sample, f"{trace_id} {record.request_id} {sample.sample_index}", parent_id, offset_ns)


def _phases_of(sample: SampleRecord, owner: str, parent_id: str, offset_ns: int) -> Iterator[TraceSpan]:
    for phase, start_ns, end_ns in timed(sample, offset_ns):
        yield TraceSpan(
            # By its beginning, which stays, and not by its place: a request that runs gets more phases.
            span_id=_hash(owner, phase.name, str(phase.start_ms))[:16],
            parent_id=parent_id,
            name=phase.name,
            start_ns=start_ns,
            end_ns=end_ns,
            attributes=dict(phase_attributes(phase)),
        )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(("quire", *parts)).encode()).hexdigest()
