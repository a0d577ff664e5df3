"""What a worker asks of the engine beside its own requests: records, looks, and the events of anybody's requests.

Owner: an EngineClient. Every question has a number and one answer; a lost engine answers all of them with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from contracts.errors import EngineDead, QuireError
from contracts.followed import EventSlice, FollowedStream
from contracts.frames import AskLook, AskRecords, EngineBound, Follow, Followed, Looked, Records, Unfollow
from contracts.live import EngineLook
from contracts.records import RecordQuery, RequestRecord

Send = Callable[[EngineBound], None]
"""Raises EngineDead where there is no engine."""


class EngineQuestions:
    """Life cycle of a question: asked -> answered, failed or given up."""

    def __init__(self, send: Send, on_change: Callable[[], None]) -> None:
        self._send = send
        self._on_change = on_change
        """Called when somebody begins or ceases to follow."""
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._followers: set[FollowedStream] = set()
        self._num_asked = 0

    @property
    def has_followers(self) -> bool:
        """Somebody reads a request and has not closed its stream."""
        return bool(self._followers)

    async def records(self, query: RecordQuery, timeout_s: float) -> list[RequestRecord]:
        """Raises TimeoutError, or what the loss of the engine means."""
        found: list[RequestRecord] = await asyncio.wait_for(
            self._ask(lambda number: AskRecords(number, query)), timeout_s
        )
        return found

    async def look(self, timeout_s: float) -> EngineLook:
        """Raises TimeoutError, or what the loss of the engine means."""
        look: EngineLook = await asyncio.wait_for(self._ask(AskLook), timeout_s)
        return look

    async def follow(self, request_id: str, tenant: str | None) -> FollowedStream:
        """A stream that has found the request; raises what the engine says, or what its loss means."""

        async def read(after: int, is_waiting: bool) -> EventSlice:
            part: EventSlice = await self._ask(
                lambda number: Follow(number, request_id, tenant, after, is_waiting), is_given_up_aloud=True
            )
            return part

        stream = FollowedStream(request_id, read, self._end_following)
        self._followers.add(stream)
        self._on_change()
        try:
            await stream.open()
        except BaseException:
            stream.close()
            raise
        return stream

    def answer(self, message: Records | Followed | Looked) -> None:
        """The engine has answered; what nobody waits for any longer is dropped."""
        answer = self._answers.get(message.number)
        if answer is None or answer.done():
            return
        if isinstance(message, Records):
            answer.set_result(message.records)
        elif message.error is not None:
            answer.set_exception(message.error.to_error())
        elif isinstance(message, Looked):
            answer.set_result(message.look)
        else:
            answer.set_result(message.part)

    def fail_all(self, error: QuireError) -> None:
        """The engine is gone."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    async def _ask(self, make: Callable[[int], EngineBound], *, is_given_up_aloud: bool = False) -> Any:
        self._num_asked += 1
        number = self._num_asked
        self._send(make(number))
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            return await answer
        except asyncio.CancelledError:
            if is_given_up_aloud:
                with contextlib.suppress(EngineDead):
                    self._send(Unfollow(number))
            raise
        finally:
            del self._answers[number]

    def _end_following(self, stream: FollowedStream) -> None:
        self._followers.discard(stream)
        self._on_change()
