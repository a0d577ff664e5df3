"""The engine behind a Unix socket: admits for every worker, sends each worker one frame per step with all its deltas.

Owner: the engine process's event loop. A worker that leaves has its requests aborted, but for detached ones; one that
sends anything else than our frames, or does not read, is cut off. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import cast

import structlog

from batching.async_engine import AsyncEngine
from contracts.errors import EngineDead, EngineError, QuireError
from contracts.frames import (
    BEAT_S,
    Abort,
    Admitted,
    AskLook,
    AskRecords,
    Beat,
    BrokenFrame,
    Cancel,
    Deltas,
    EngineBound,
    ErrorReport,
    Follow,
    Followed,
    FrameReader,
    Hello,
    Looked,
    Records,
    Refused,
    Submit,
    Tally,
    Unfollow,
    WorkerBound,
    encode_frame,
)
from contracts.generation import FinishReason, GenerationDelta, final_deltas

_POLL_S = 0.05
"""How often the numbers are looked at; soon after the engine has come to rest, workers know."""
FLUSH_S = 1.0
"""How long `stop` waits for workers to read what is left."""
HOLD_ABOVE_BYTES, GO_ON_BELOW_BYTES = 512 * 1024, 128 * 1024
"""Unsent to one worker, between which the engine begins no step: a worker with a core to itself takes megabytes a
second, and what waits here is latency."""
STALL_S = 3.0
"""A worker that takes nothing for so long while the engine waits for it is hung: it is cut off. Until then the streams
of the other workers wait as well."""
MAX_UNSENT_BYTES = 16 * 1024 * 1024
"""A worker that asks for answers and leaves so much of them unread is cut off at once."""

FOLLOW_PAUSE_S = 0.005
"""How often it is looked whether a worker has caught up, before followers are told more."""

log = structlog.get_logger("quire.engine")


class EngineServer:
    """Listens on a socket that only this user can open. Life cycle: start -> stop."""

    def __init__(self, engine: AsyncEngine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._workers: set[_Worker] = set()

    async def start(self) -> None:
        """Listen; the socket replaces one that a killed engine left behind."""
        self._path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        old_mask = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(self._accept, str(self._path))
        finally:
            os.umask(old_mask)
        self._beating = asyncio.create_task(self._beat(), name="quire-beat")

    async def stop(self) -> None:
        """Send what is left to send, and close."""
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        self._server.close()
        workers = list(self._workers)
        farewell = encode_frame(Beat(self._engine.stats()))  # an engine that was drained says so: it has not died
        for worker in workers:
            worker.write(farewell)
            worker.close()
        if workers:
            await asyncio.wait([worker.lost for worker in workers], timeout=FLUSH_S)
        for worker in list(self._workers):
            worker.cut_off()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> _Worker:
        return _Worker(self._engine, self._workers)

    async def _beat(self) -> None:
        """Say that the loop turns, with the latest numbers; at once when the last request has ended, well or not."""
        loop = asyncio.get_running_loop()
        due_s = 0.0
        said: object = None
        while True:
            rest = self._engine.rest
            if loop.time() >= due_s or rest not in (None, said):
                due_s = loop.time() + BEAT_S
                said = rest
                frame = encode_frame(Beat(self._engine.stats()))
                for worker in list(self._workers):
                    worker.write(frame)
            for worker in list(self._workers):
                worker.check_progress()
            await asyncio.sleep(_POLL_S)


class _Sink:
    """One request of one worker: what is put waits until the loop's next turn and goes out with all the rest."""

    __slots__ = ("_open", "_worker", "request_id")

    def __init__(self, request_id: str, num_samples: int, worker: _Worker) -> None:
        self.request_id = request_id
        self._open = set(range(num_samples))
        self._worker = worker

    @property
    def is_closed(self) -> bool:
        return not self._open

    @property
    def is_stalled(self) -> bool:
        """Never: the worker bounds what its readers leave unread, and the connection is bounded as a whole."""
        return False

    def put(self, delta: GenerationDelta) -> None:
        if delta.finish_reason is not None:
            self._open.discard(delta.sample_index)
            if not self._open:
                self._worker.forget(self.request_id)
        self._worker.put(delta)

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        for delta in final_deltas(self.request_id, self._open, reason, error):
            self.put(delta)


class _Worker(asyncio.Protocol):
    """One connection, from accept to loss; owns the requests that came over it."""

    def __init__(self, engine: AsyncEngine, workers: set[_Worker]) -> None:
        self._engine = engine
        self._workers = workers
        self._reader = FrameReader(EngineBound)
        self._request_ids: set[str] = set()
        self._outbox: list[GenerationDelta] = []
        self._follows: dict[int, asyncio.Task[None]] = {}
        self._telling = asyncio.Lock()
        """Followers are answered one at a time."""
        self._transport: asyncio.Transport | None = None
        self._held_bytes: int | None = None
        """Unsent while the engine waits for this worker, when it last took something; None: the engine goes on."""
        self._num_idle_polls = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HOLD_ABOVE_BYTES, GO_ON_BELOW_BYTES)
        self._workers.add(self)
        self.send(Hello(self._engine.info, self._engine.stats()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._workers.discard(self)
        self.resume_writing()
        self._transport = None
        self.lost.set_result(None)
        request_ids, self._request_ids = self._request_ids, set()
        if request_ids:
            log.info("worker_left", num_requests=len(request_ids))
        for request_id in request_ids:
            self._engine.leave(request_id)
        for task in self._follows.values():
            task.cancel()

    def pause_writing(self) -> None:
        """Too much is unsent: no more is made until the worker has caught up, or is cut off."""
        self._held_bytes = self._num_unsent_bytes
        self._num_idle_polls = 0
        self._engine.hold(self)

    def resume_writing(self) -> None:
        self._held_bytes = None
        self._engine.release(self)

    def check_progress(self) -> None:
        """Cut off a worker that has taken nothing for STALL_S while the engine waits for it.

        Called every _POLL_S. Polls are counted instead of seconds: a machine that stood still stood still for both.
        """
        if self._held_bytes is None:
            return
        if (num_bytes := self._num_unsent_bytes) < self._held_bytes:
            self._held_bytes, self._num_idle_polls = num_bytes, 0
        self._num_idle_polls += 1
        if self._num_idle_polls > STALL_S / _POLL_S:
            self._cut_off_for_not_reading()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._handle(message)
        except BrokenFrame as error:
            log.warning("broken_frame", reason=str(error)[:200])
            self.close()

    def _handle(self, message: object) -> None:
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Abort):
            if message.request_id in self._request_ids:
                self._engine.abort(message.request_id, message.reason)
        elif isinstance(message, Follow):
            task = self._follows[message.number] = asyncio.create_task(self._follow(message))
            task.add_done_callback(lambda _: self._follows.pop(message.number, None))
        elif isinstance(message, Unfollow):
            if (asked := self._follows.get(message.number)) is not None:
                asked.cancel()
        elif isinstance(message, Cancel):
            self._engine.cancel(message.any_id, message.tenant, message.reason)
        elif isinstance(message, Tally):
            self._engine.count_refused_unread(message.num_refused_unread)
        elif isinstance(message, AskLook):
            self._show(message)
        elif isinstance(message, AskRecords):
            self.send(Records(message.number, self._engine.find_records(message.query)))

    def _submit(self, message: Submit) -> None:
        request = message.request
        try:
            self._engine.admit(request, _Sink(request.request_id, request.num_samples, self))
        except QuireError as error:
            self.send(Refused(request.request_id, ErrorReport.of(error)))
            return
        except Exception:  # one request's trouble must not end the connection, and all others with it
            log.exception("admission_failed")
            failure = EngineError("The engine could not admit this request; the server's log says why.")
            self.send(Refused(request.request_id, ErrorReport.of(failure)))
            return
        self._request_ids.add(request.request_id)
        self.send(Admitted(request.request_id))

    async def _follow(self, message: Follow) -> None:
        """Answer once there is something to say, and not before the worker has read most of what it was sent: what is
        told again must not make the engine wait."""
        try:
            part = await self._engine.read_events(
                message.request_id, message.tenant, message.after, is_waiting=message.is_waiting
            )
            answer = Followed(message.number, part)
        except QuireError as error:
            answer = Followed(message.number, None, ErrorReport.of(error))
        async with self._telling:
            while self._num_unsent_bytes > GO_ON_BELOW_BYTES:  # noqa: ASYNC110 (nobody tells of so few)
                await asyncio.sleep(FOLLOW_PAUSE_S)
            self.send(answer)

    def _show(self, message: AskLook) -> None:
        try:
            self.send(Looked(message.number, self._engine.look_now()))
        except EngineDead as error:
            self.send(Looked(message.number, None, ErrorReport.of(error)))

    def put(self, delta: GenerationDelta) -> None:
        """Send with everything else that this turn of the loop brings."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(delta)

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._request_ids.discard(request_id)

    def send(self, message: WorkerBound) -> None:
        """Send behind everything that was put before: an id may be used again as soon as its request has ended."""
        self._flush()
        self.write(encode_frame(message))

    def write(self, frame: bytes) -> None:
        """Hand one frame to the kernel, or cut off a worker that does not read."""
        if self._transport is None:
            return
        self._transport.write(frame)
        if self._num_unsent_bytes > MAX_UNSENT_BYTES:
            self._cut_off_for_not_reading()

    @property
    def _num_unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _cut_off_for_not_reading(self) -> None:
        log.warning("worker_does_not_read", unsent_bytes=self._num_unsent_bytes)
        self.cut_off()

    def cut_off(self) -> None:
        """Close without sending anything more; the loss of the connection then aborts what is left."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Send what waits and close; the loss of the connection then aborts what is left."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._outbox:
            deltas, self._outbox = self._outbox, []
            self.write(encode_frame(Deltas(deltas)))
