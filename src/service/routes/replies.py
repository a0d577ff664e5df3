"""Who reads a generation: the reply itself, or, where the request is detached, a keeper, and the reply follows.

The keeper reads a detached request to its end, so that neither a slow client nor one that is gone can end it. Its reply
and GET /v1/requests/{id}/events are the same: events that are numbered alike, whoever makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import structlog
from litestar import Request
from litestar.types import ASGIApp

from contracts.errors import QuireError
from service.generation_stream import ChoicePiece, GenerationStream
from service.routes.generation import CLIENT_LEFT, JsonReply, Outcome, Reply, reply_events
from service.sse import DONE, EventStreamReply

_ERROR_BEGINS = b'data: {"error":'
_kept: set[asyncio.Task[None]] = set()
"""Held until they are done, as the event loop holds tasks weakly."""
_log = structlog.get_logger("service.generation")


async def reply_with(reply: Reply, request: Request[Any, Any, Any]) -> ASGIApp:
    """The reply that ends the generation on every path: finished, failed, client gone; or that only watches it."""
    generation = reply.generation
    outcome = Outcome(request, reply)
    if generation.request.is_detached:
        keep(generation, outcome)
        watched = replace(reply, generation=await generation.follower())
        if reply.is_stream:
            return follow_reply(watched, after=0)
        return JsonReply(watched, Following(watched))
    if not reply.is_stream:
        return JsonReply(reply, outcome)
    return EventStreamReply(reply_events(reply, outcome), outcome.close, extra_headers=list(reply.extra_headers))


def keep(generation: GenerationStream, outcome: Outcome) -> None:
    """Read a generation to its end, whoever else reads it."""
    task = asyncio.create_task(_read_to_the_end(generation, outcome), name="quire-keeper")
    _kept.add(task)
    task.add_done_callback(_kept.discard)


async def _read_to_the_end(generation: GenerationStream, outcome: Outcome) -> None:
    try:
        while pieces := await generation.take():
            outcome.begin_sending(pieces)
        outcome.status = 200
    except QuireError as error:
        outcome.status = error.status
    finally:
        outcome.close()


def follow_reply(reply: Reply, *, after: int) -> ASGIApp:
    """The numbered events of a followed generation, but for the first `after`."""
    following = Following(reply)
    events = number_events(reply_events(reply, following), after)
    return EventStreamReply(events, following.close, extra_headers=list(reply.extra_headers))


class Following:
    """One reader of a request that is not his own to end; writes its `request_followed` line."""

    def __init__(self, reply: Reply) -> None:
        self._generation = reply.generation
        self._head = reply.head
        self._is_closed = False
        self.status: int | None = None

    def begin_sending(self, pieces: Sequence[ChoicePiece]) -> None:
        """Times are the keeper's matter."""

    def close(self) -> None:
        """Read no further; may be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        self._generation.close()
        status = CLIENT_LEFT if self.status is None else self.status
        tokens = self._generation.usage().completion_tokens
        _log.info("request_followed", response_id=self._head.id, status=status, completion_tokens=tokens)


async def number_events(batches: AsyncIterator[bytes], after: int) -> AsyncIterator[bytes]:
    """The same events with numbers from 1 on, without the first `after`.

    Which events there are follows from the tokens alone, however they come together: so the numbers are the same
    whenever and wherever they are made. Errors and [DONE] have none, and are always sent.
    """
    number = 0
    async with aclosing(batches) as source:  # type: ignore[type-var]  # an async generator, as all that come here
        async for batch in source:
            out: list[bytes] = []
            for one in batch.split(b"\n\n")[:-1]:
                if one.startswith(_ERROR_BEGINS) or one == DONE[:-2]:
                    out += (one, b"\n\n")
                    continue
                number += 1
                if number > after:
                    out += (b"id: %d\n" % number, one, b"\n\n")
            if out:
                yield b"".join(out)
