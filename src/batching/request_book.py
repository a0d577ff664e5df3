"""All that the engine knows of its requests beside their live state: records, and what their samples were given. Pure.

One life cycle for both: a request's events live as long as its record, or less when they are many.
"""

from __future__ import annotations

import msgspec

from batching.event_log import EventLog
from batching.record_ring import LiveSamples, RecordRing
from batching.waiting_queue import WaitingQueue
from contracts.errors import EventsGone, RequestNotFound
from contracts.followed import EventSlice
from contracts.generation import GenerationDelta, GenerationRequest
from contracts.records import RecordQuery, RequestRecord, SampleRecord


class RequestBook:
    """Owner: the AsyncEngine."""

    def __init__(self) -> None:
        self.records = RecordRing()
        self.events = EventLog()

    def begin(self, request: GenerationRequest) -> None:
        """A request was admitted to the queue."""
        self.records.begin(request)
        self.events.begin(request)

    def note(self, deltas: list[GenerationDelta]) -> list[SampleRecord]:
        """What samples have just been given; returns the records of those that have ended."""
        append = self.events.append
        records = []
        for delta in deltas:
            append(delta)
            if delta.record is not None:
                records.append(delta.record)
                for request_id in self.records.end(delta.request_id, delta.record):
                    self.events.forget(request_id)
        return records

    def is_detached(self, request_id: str) -> bool:
        """It goes on without a reader."""
        record = self.records.get(request_id, None)
        return record is not None and record.is_detached

    def read(self, request_id: str, tenant: str | None, after: int) -> EventSlice:
        """A part of its events; raises RequestNotFound or EventsGone."""
        if self.records.get(request_id, tenant) is None:
            raise RequestNotFound("The request is none of yours, or the engine does not remember it.")
        part = self.events.read(request_id, after)
        if part is None:
            raise EventsGone("The events of this request have been given up to make room for those of later ones.")
        return part

    def find(self, query: RecordQuery, live: LiveSamples, waiting: WaitingQueue) -> list[RequestRecord]:
        """The records that are meant, those that wait with their places in the queue."""
        found = self.records.find(query, live)
        if not any(record.is_waiting for record in found):
            return found
        place_of: dict[str, int] = {}
        for place, sequence in enumerate(waiting.in_turn()):
            place_of.setdefault(sequence.request.request_id, place)
        return [
            msgspec.structs.replace(record, queue_position=place_of.get(record.request_id))
            if record.is_waiting
            else record
            for record in found
        ]
