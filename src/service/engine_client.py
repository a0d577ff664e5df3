"""contracts.engine.Engine over a Unix socket: the worker's side of the engine process.

Owner: the worker's event loop. A lost engine ends what it had begun with an error; what had brought no token yet is
sent again once a new engine answers, unless two engines have died under it. Knows nothing of processes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import structlog

from contracts.engine import DeltaStream, EngineInfo, EngineStats
from contracts.errors import EngineDead, EngineError, InvalidValue, QuireError, ShuttingDown
from contracts.followed import FollowedStream
from contracts.frames import (
    BEAT_S,
    Abort,
    Admitted,
    Beat,
    BrokenFrame,
    Cancel,
    Deltas,
    EngineBound,
    Followed,
    FrameReader,
    Hello,
    Looked,
    Records,
    Refused,
    Submit,
    Tally,
    WorkerBound,
    encode_frame,
)
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from contracts.live import EngineLook
from contracts.records import RecordQuery, RequestRecord
from service.engine_questions import EngineQuestions

RECONNECT_S = 0.05
REPLAY_WAIT_S = 4.0
"""How long after an engine's last sign of life a request waits for a new one before it ends with an error."""
MAX_ENGINES_LOST = 2
"""A request that was under way when so many engines died is never sent again: it may be what kills them."""
DEAD_RETRY_AFTER_S = 5.0

LEFT = "the engine was drained and takes no new requests"
LOST = "The engine stopped; it is being restarted. Send the request again."
POISON = "The engine stopped twice while it had this request; it is not tried again."

log = structlog.get_logger("service.engine")


class _Open:
    """One request that the engine has, or will get again."""

    __slots__ = ("_submitted_s", "admission", "has_begun", "is_aborted", "num_engines_lost", "request", "stream")

    def __init__(self, request: GenerationRequest, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.stream = DeltaStream(request.request_id, request.num_samples)
        self.admission: asyncio.Future[None] = loop.create_future()
        self.has_begun = False
        self.is_aborted = False
        self.num_engines_lost = 0
        self._submitted_s = loop.time()

    def for_another_engine(self, now_s: float) -> GenerationRequest:
        """The request as it is sent again: what it has waited counts towards its deadline."""
        if self.request.timeout_s is None:
            return self.request
        left_s = max(0.0, self._submitted_s + self.request.timeout_s - now_s)
        return msgspec.structs.replace(self.request, timeout_s=left_s)


class EngineClient:
    """Life cycle: connect (returns at the engine's first hello) -> submit, abort, follow, stats -> drain.

    Between, the connection may be lost and found again any number of times.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._open: dict[str, _Open] = {}
        self._questions = EngineQuestions(self._send_or_raise, self._note_idle)
        self.take_num_refused: Callable[[], int] = lambda: 0
        """Asked now and then for the requests that were refused without asking the engine, which counts them."""
        self._info: EngineInfo | None = None
        self._stats: EngineStats | None = None
        self._transport: asyncio.Transport | None = None
        self._hello = asyncio.Event()
        self._lost = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._candidate: asyncio.Transport | None = None
        """Connected, but not yet greeted."""
        self._last_heard_s = 0.0
        self._lost_s = 0.0
        self._is_draining = False
        self._keeper = asyncio.create_task(self._keep_connected(), name="quire-engine-client")

    @classmethod
    async def connect(cls, path: Path, timeout_s: float) -> EngineClient:
        """Wait for an engine to listen at `path` and to say what it serves."""
        client = cls(path, timeout_s)
        try:
            await client._hello.wait()
        except asyncio.CancelledError:
            await client.drain(0.0)
            raise
        return client

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            raise EngineDead("The engine has not answered yet.", retry_after_s=DEAD_RETRY_AFTER_S)
        return self._info

    @property
    def _has_left(self) -> bool:
        """The engine was drained on purpose and is gone: nobody starts it again at this place."""
        return self._transport is None and self._stats is not None and self._stats.is_draining

    async def submit(self, request: GenerationRequest) -> DeltaStream:
        """Admit a request or raise: ContextLengthExceeded, InvalidValue, QueueFull, ShuttingDown, EngineDead."""
        if self._is_draining:
            raise ShuttingDown("the server is shutting down and takes no new requests", retry_after_s=5.0)
        if self._has_left:
            raise ShuttingDown(LEFT, retry_after_s=DEAD_RETRY_AFTER_S)
        if self._transport is None:
            raise EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S)
        if request.request_id in self._open:
            raise InvalidValue(f"request id {request.request_id!r} is in use by a request that has not ended")
        self._send(Submit(request))
        entry = self._open[request.request_id] = _Open(request, asyncio.get_running_loop())
        self._note_idle()
        try:
            await entry.admission
        except asyncio.CancelledError:
            self._forget(request.request_id)
            self._send(Abort(request.request_id))
            raise
        return entry.stream

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request of this worker at the next step boundary; unknown or ended ids are ignored."""
        entry = self._open.get(request_id)
        if entry is None:
            return
        entry.is_aborted = True
        if self._transport is None:  # it waits for a new engine
            self._abandon(request_id)
        else:
            self._send(Abort(request_id, reason))

    def cancel(self, any_id: str, tenant: str | None, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End what the id names of this tenant, or of any, whichever worker it came from."""
        self._send(Cancel(any_id, tenant, reason))

    async def follow(self, request_id: str, tenant: str | None) -> FollowedStream:
        """Read a request from its first delta on; raises RequestNotFound, EventsGone, ShuttingDown or EngineDead."""
        return await self._questions.follow(request_id, tenant)

    def stats(self) -> EngineStats:
        """What the engine said last, at most BEAT_S ago; an engine that cannot be reached is not alive."""
        if self._stats is None:
            raise EngineDead("The engine has not answered yet.", retry_after_s=DEAD_RETRY_AFTER_S)
        return msgspec.structs.replace(
            self._stats,
            is_alive=self._stats.is_alive and self._transport is not None,
            is_draining=self._stats.is_draining or self._is_draining,
        )

    async def records(self, query: RecordQuery) -> list[RequestRecord]:
        """What the engine remembers of its requests; raises EngineDead where it does not answer in time."""
        try:
            return await self._questions.records(query, self._timeout_s)
        except TimeoutError:
            raise EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S) from None

    async def look(self) -> EngineLook:
        """Who holds which blocks, who runs and who waits; raises EngineDead where it does not answer in time."""
        try:
            return await self._questions.look(self._timeout_s)
        except TimeoutError:
            raise EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S) from None

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, let the running ones end within the time, abort the rest, and disconnect."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        for request_id in list(self._open):
            self._abandon(request_id)
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        connection = self._transport or self._candidate
        if connection is not None:
            connection.abort()  # the engine aborts what comes from a lost connection
            await self._lost.wait()

    # ---- the connection

    async def _keep_connected(self) -> None:
        """Connect, watch the beat, and begin again when the engine is lost; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            try:
                await loop.create_unix_connection(lambda: _Connection(self), str(self._path))
            except OSError:  # no engine yet, or not yet again
                self._fail_overdue()
                await asyncio.sleep(RECONNECT_S)
                continue
            while not self._lost.is_set():
                began_s = loop.time()
                # Not wait_for: it swallows a cancellation that comes together with the loss (until Python 3.12).
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await self._lost.wait()
                self._check_beat(began_s)

    def _check_beat(self, began_s: float) -> None:
        """Cut the connection to an engine that says nothing; `began_s` is when this turn of the watch began."""
        now_s = asyncio.get_running_loop().time()
        if now_s - began_s > 2 * BEAT_S:  # it was this process that stood still
            self._last_heard_s = now_s
        if self._transport is None:
            self._fail_overdue()
        connection = self._transport or self._candidate
        if connection is not None and now_s - self._last_heard_s > self._timeout_s:
            log.error("engine_silent", after_s=self._timeout_s)
            connection.abort()

    def on_connected(self, transport: asyncio.Transport) -> None:
        """A connection stands, but the engine is known only by its hello."""
        self._last_heard_s = asyncio.get_running_loop().time()
        self._candidate = transport

    def on_messages(self, messages: list[WorkerBound]) -> None:
        """Everything that one read has brought."""
        self._last_heard_s = asyncio.get_running_loop().time()
        for message in messages:
            if isinstance(message, Deltas):
                for delta in message.deltas:
                    self._put(delta)
            elif isinstance(message, Beat):
                self._stats = message.stats
                if num_refused := self.take_num_refused():
                    self._send(Tally(num_refused))
            elif isinstance(message, Admitted):
                self._settle(message.request_id, None)
            elif isinstance(message, Refused):
                self._settle(message.request_id, message.error.to_error())
            elif isinstance(message, Records | Followed | Looked):
                self._questions.answer(message)
            elif isinstance(message, Hello):
                self._greet(message)

    def on_lost(self) -> None:
        """The engine is gone: end what it had begun, keep what can be sent again.

        An engine that never said hello has been sent nothing, so that its end is no request's fault.
        """
        was_greeted = self._transport is not None
        self._transport = self._candidate = None
        self._lost.set()
        self._questions.fail_all(
            ShuttingDown("The server is stopping.", retry_after_s=5.0)
            if self._is_draining
            else EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S)
        )
        if not was_greeted:
            return
        self._lost_s = self._last_heard_s
        if self._open:
            log.error("engine_lost", num_requests=len(self._open))
        for request_id, entry in list(self._open.items()):
            entry.num_engines_lost += 1
            if entry.is_aborted:
                self._abandon(request_id)
            elif self._has_left and not entry.admission.done():
                self._fail(request_id, ShuttingDown(LEFT, retry_after_s=DEAD_RETRY_AFTER_S))
            elif entry.num_engines_lost >= MAX_ENGINES_LOST:
                self._fail(request_id, EngineError(POISON))
            elif entry.has_begun:
                self._fail(request_id, EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S))

    def _greet(self, hello: Hello) -> None:
        self._info, self._stats, self._transport = hello.info, hello.stats, self._candidate
        self._hello.set()
        now_s = asyncio.get_running_loop().time()
        for entry in self._open.values():
            log.info("request_sent_again", request_id=entry.request.request_id)
            self._send(Submit(entry.for_another_engine(now_s)))

    def _fail_overdue(self) -> None:
        """End what has waited long enough for a new engine."""
        if self._open and asyncio.get_running_loop().time() - self._lost_s > REPLAY_WAIT_S:
            for request_id in list(self._open):
                self._fail(request_id, EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S))

    # ---- requests

    def _put(self, delta: GenerationDelta) -> None:
        entry = self._open.get(delta.request_id)
        if entry is None:
            return
        entry.has_begun = True
        entry.stream.put(delta)
        if entry.stream.is_closed:
            self._forget(delta.request_id)
        elif entry.stream.is_stalled:
            log.warning("slow_reader_dropped", request_id=delta.request_id)
            if not entry.request.is_detached:
                self._send(Abort(delta.request_id))
            self._forget(delta.request_id)
            entry.stream.end(FinishReason.ERROR, "the reader fell too far behind")

    def _settle(self, request_id: str, refusal: QuireError | None) -> None:
        """The engine has answered a Submit."""
        entry = self._open.get(request_id)
        if entry is None:
            return
        if refusal is not None:
            self._fail(request_id, refusal)
        elif not entry.admission.done():
            entry.admission.set_result(None)

    def _fail(self, request_id: str, error: QuireError) -> None:
        """End a request with an error, as its admission's answer or, once it was admitted, in its stream."""
        entry = self._open[request_id]
        self._forget(request_id)
        if entry.admission.done():
            reason = FinishReason.LOST if error.should_retry else FinishReason.ERROR
            entry.stream.end(reason, error.message)
        else:
            entry.admission.set_exception(error)

    def _abandon(self, request_id: str) -> None:
        """End a request that nobody wants any longer, without the engine's word."""
        entry = self._open[request_id]
        self._forget(request_id)
        entry.stream.end(FinishReason.ABORT)
        if not entry.admission.done():
            entry.admission.set_result(None)

    def _forget(self, request_id: str) -> None:
        self._open.pop(request_id, None)
        self._note_idle()

    def _note_idle(self) -> None:
        """`drain` waits for what was submitted here, and for those who read what others submitted."""
        if self._open or self._questions.has_followers:
            self._idle.clear()
        else:
            self._idle.set()

    def _send_or_raise(self, message: EngineBound) -> None:
        if self._transport is None:
            raise EngineDead(LOST, retry_after_s=DEAD_RETRY_AFTER_S)
        self._send(message)

    def _send(self, message: EngineBound) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(message))


class _Connection(asyncio.Protocol):
    """The bytes of one connection; tells the client what they mean."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._reader = FrameReader(WorkerBound)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client.on_connected(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._client.on_messages(cast(list[WorkerBound], self._reader.feed(data)))
        except BrokenFrame as error:
            log.error("broken_frame", reason=str(error)[:200])
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.on_lost()
