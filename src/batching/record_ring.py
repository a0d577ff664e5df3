"""The last requests of an engine and what is known of them, for whoever asks why one was slow. Knows no scheduler."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Set

import msgspec

from contracts.generation import GenerationRequest
from contracts.records import MAX_ANSWERED, RecordQuery, RequestRecord, SampleRecord, total_s

MAX_RECORDS = 1024
"""Of ended requests; the oldest goes first. A record has a few hundred bytes, some kilobytes after many chunks."""
MAX_PROMPT_DIGITS = 4
"""Of the number behind a reply's id, where it has several prompts."""

LiveSamples = Callable[[Set[str]], dict[str, list[SampleRecord]]]
"""Engine request ids, to the samples of each that run or wait, as they are now."""


class RecordRing:
    """Owner: the AsyncEngine. Life cycle of an entry: begin -> end once per sample -> forgotten in its turn."""

    def __init__(self) -> None:
        self._live: dict[str, RequestRecord] = {}
        self._ended: OrderedDict[str, RequestRecord] = OrderedDict()

    def live_ids(self, query: RecordQuery) -> list[str]:
        """Of the requests that are meant, those of which a sample has not ended."""
        return [record.request_id for record in _select(self._live, query)]

    def get(self, request_id: str, tenant: str | None) -> RequestRecord | None:
        """What is kept of one request by the engine's own id, if it is this tenant's; None for a tenant: anybody's."""
        record = self._live.get(request_id) or self._ended.get(request_id)
        return record if record is not None and tenant in (None, record.tenant) else None

    def begin(self, request: GenerationRequest) -> None:
        """A request was admitted to the queue; an ended one of the same id is forgotten."""
        self._ended.pop(request.request_id, None)
        self._live[request.request_id] = RequestRecord(
            request_id=request.request_id,
            client_request_id=request.client_request_id,
            traceparent=request.traceparent,
            tenant=request.tenant.name,
            num_samples=request.num_samples,
            samples=[],
            reply_recipe=request.reply_recipe,
            is_detached=request.is_detached,
        )

    def end(self, request_id: str, sample: SampleRecord) -> list[str]:
        """One of its samples has ended; returns the requests that are forgotten for it."""
        record = self._live.get(request_id)
        forgotten: list[str] = []
        if record is None:
            return forgotten
        record.samples.append(sample)
        if record.is_finished:
            del self._live[request_id]
            self._ended[request_id] = record
            self._ended.move_to_end(request_id)
            while len(self._ended) > MAX_RECORDS:
                forgotten.append(self._ended.popitem(last=False)[0])
        return forgotten

    def find(self, query: RecordQuery, live: LiveSamples) -> list[RequestRecord]:
        """What is asked for; the samples that run or wait are taken from `live`, of the requests that are meant."""
        found = _select(self._ended, query)
        open_records = _select(self._live, query)
        open_samples = live({record.request_id for record in open_records})
        for record in open_records:
            samples = [*record.samples, *open_samples.get(record.request_id, [])]
            if samples:
                found.append(msgspec.structs.replace(record, samples=samples))
        if query.latest_submitted_s is not None:
            found = [record for record in found if record.submitted_s <= query.latest_submitted_s]
        found.sort(key=total_s if query.is_slowest_first else _submitted_s, reverse=True)
        return found[: max(0, min(query.limit, MAX_ANSWERED))]


def _select(records: Mapping[str, RequestRecord], query: RecordQuery) -> list[RequestRecord]:
    """Those that are meant; an engine's own id is looked up, everything else is looked for."""
    one = None if query.any_id is None else records.get(query.any_id)
    candidates = records.values() if one is None else [one]
    return [record for record in candidates if _is_meant(record, query)]


def _is_meant(record: RequestRecord, query: RecordQuery) -> bool:
    if query.tenant is not None and record.tenant != query.tenant:
        return False
    if query.any_id is None or query.any_id in (record.request_id, record.client_request_id, record.trace_id):
        return True
    reply_id, _, number = record.request_id.rpartition("-")
    return query.any_id == reply_id and number.isdigit() and len(number) <= MAX_PROMPT_DIGITS


def _submitted_s(record: RequestRecord) -> float:
    return record.submitted_s
