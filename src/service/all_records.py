"""What all loaded engines remember of their requests, as if they were one engine. Knows no HTTP."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from contracts.errors import EngineDead
from contracts.records import MAX_ANSWERED, RecordQuery, RequestRecord, total_s
from service.engine_provider import ModelProvider


class RecordSource(Protocol):
    """Whoever remembers requests."""

    async def records(self, query: RecordQuery) -> list[RequestRecord]:
        """What is asked for; raises EngineDead."""
        ...


class AllRecords:
    """A RecordSource over every model that is loaded; each record says which one served it."""

    def __init__(self, provider: ModelProvider) -> None:
        self._provider = provider

    async def records(self, query: RecordQuery) -> list[RequestRecord]:
        """In the order that the query wants, across the engines; those of an engine that is dead are left out.

        Raises EngineDead where a dead one may have what the others have not, Starting before the first is loaded.
        """
        self._provider.check_started()
        every = self._provider.all_serving()
        answers = await asyncio.gather(*(serving.engine.records(query) for serving in every), return_exceptions=True)
        found = [
            msgspec.structs.replace(record, model=serving.model.names[0])
            for serving, records in zip(every, answers, strict=True)
            if not isinstance(records, BaseException)
            for record in records
        ]
        for error in answers:
            if isinstance(error, BaseException) and not (found and isinstance(error, EngineDead)):
                raise error
        if len(every) > 1:
            found.sort(key=total_s if query.is_slowest_first else _submitted_s, reverse=True)
        return found[: max(0, min(query.limit, MAX_ANSWERED))]


def _submitted_s(record: RequestRecord) -> float:
    return record.submitted_s
