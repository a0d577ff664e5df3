"""The engine in process: an asyncio task that schedules and commits, and one thread that executes.

The task owns the scheduler; the thread owns model, KV tensors and sampler. Only the two frozen structs of
`batching.step` cross between them, so there are no locks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import structlog

from batching.engine import EngineCore, build_engine, snapshot
from batching.latencies import LatencyBook
from batching.live_look import count_so_far, look_at_batch, look_at_blocks, look_at_queue
from batching.model_loader import ProgressCallback, no_progress
from batching.request_book import RequestBook
from batching.step import StepOutput
from batching.step_pipeline import StepPipeline
from batching.step_spans import StepSpans
from batching.step_timer import StepTimer
from contracts.engine import DeltaStream, EngineInfo, EngineStats
from contracts.errors import EngineDead, ShuttingDown
from contracts.followed import EventSlice, FollowedStream
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from contracts.live import EngineLook
from contracts.records import RecordQuery, RequestRecord
from contracts.settings import EngineSettings

log = structlog.get_logger("quire.engine")


class DeltaSink(Protocol):
    """Where the deltas of one request go: a DeltaStream, or one end of a socket."""

    @property
    def request_id(self) -> str: ...

    @property
    def is_closed(self) -> bool:
        """Every sample has ended."""
        ...

    @property
    def is_stalled(self) -> bool:
        """Nobody takes what is put; the request is ended."""
        ...

    def put(self, delta: GenerationDelta) -> None: ...

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Put a last delta for every sample that has not ended."""
        ...


class AsyncEngine:
    """contracts.engine.Engine, in process. Life cycle: start -> submit, abort, follow, stats -> drain.

    Owner: the service's event loop; every method is called there.
    """

    def __init__(
        self, core: EngineCore, executor: ThreadPoolExecutor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._core = core
        self._scheduler = core.scheduler
        self._executor = executor
        self._clock = clock
        self._sinks: dict[str, DeltaSink] = {}
        self._book = RequestBook()
        self._followers: dict[str, list[asyncio.Future[None]]] = {}
        """Those that wait for the next delta of a request."""
        self._latencies = LatencyBook()
        self._last_step_s = 0.0
        self._pipeline = StepPipeline(core.runner, log.error)
        self.timer = StepTimer(warm_up_step_s=core.warm_up_step_s, preparation=core.preparation)
        """Says how long the step in flight has run; a watchdog in another thread may read it."""
        self.step_spans: StepSpans | None = None
        """Set where spans are sent."""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._holders: set[object] = set()
        self._may_step = asyncio.Event()
        self._may_step.set()
        self._death: str | None = None
        self._is_draining = False
        self._loop_task = asyncio.create_task(self._run(), name="quire-engine")

    @classmethod
    async def start(cls, settings: EngineSettings, on_progress: ProgressCallback = no_progress) -> AsyncEngine:
        """Load the model in the runner thread and start the loop; raises StartupError."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quire-runner")
        loop = asyncio.get_running_loop()
        core = await loop.run_in_executor(executor, build_engine, settings, on_progress)
        return cls(core, executor)

    @property
    def info(self) -> EngineInfo:
        return self._core.info

    async def submit(self, request: GenerationRequest) -> DeltaStream:
        """Admit a request or raise: ContextLengthExceeded, InvalidValue, OverloadError or EngineDead."""
        stream = DeltaStream(request.request_id, request.num_samples)
        self.admit(request, stream)
        return stream

    def admit(self, request: GenerationRequest, sink: DeltaSink) -> None:
        """Admit a request whose deltas go to `sink`, or raise as `submit` does."""
        if self._death is not None:
            raise EngineDead(self._death)
        if self._is_draining:
            raise ShuttingDown("the server is shutting down and takes no new requests", retry_after_s=5.0)
        self._scheduler.submit(request, self._clock())
        self._sinks[request.request_id] = sink
        self._book.begin(request)
        self._idle.clear()
        self._wake.set()

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request now; its blocks are free at the next step boundary."""
        self._deliver(self._scheduler.abort(request_id, self._clock(), reason))

    def cancel(self, any_id: str, tenant: str | None, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End what the id names of this tenant, or of any, now."""
        for request_id in self._book.records.live_ids(RecordQuery(any_id=any_id, tenant=tenant)):
            self.abort(request_id, reason)

    def leave(self, request_id: str) -> None:
        """Whoever reads a request is gone: a detached one goes on without a reader, any other is ended."""
        if self._book.is_detached(request_id):
            self._sinks.pop(request_id, None)
        else:
            self.abort(request_id)

    async def follow(self, request_id: str, tenant: str | None) -> FollowedStream:
        """Read a request from its first delta on; raises RequestNotFound, EventsGone or EngineDead."""

        async def read(after: int, is_waiting: bool) -> EventSlice:
            await asyncio.sleep(0)  # a long log is read while others have their turns
            return await self.read_events(request_id, tenant, after, is_waiting=is_waiting)

        stream = FollowedStream(request_id, read, lambda stream: None)
        await stream.open()
        return stream

    async def read_events(self, request_id: str, tenant: str | None, after: int, *, is_waiting: bool) -> EventSlice:
        """The deltas behind the first `after`, waiting for the next one where that is wanted; raises as `follow`."""
        while True:
            if self._death is not None:
                raise EngineDead(self._death)
            part = self._book.read(request_id, tenant, after)
            if part.deltas or part.is_over or not is_waiting:
                return part
            news = asyncio.get_running_loop().create_future()
            waiting = self._followers.setdefault(request_id, [])
            waiting.append(news)
            try:
                await news
            finally:
                waiting.remove(news)
                if not waiting and self._followers.get(request_id) is waiting:
                    del self._followers[request_id]

    def hold(self, holder: object) -> None:
        """Begin no further step until every holder has called `release`: the results are not taken as fast as made.

        Whoever holds must bound the time.
        """
        self._holders.add(holder)
        self._may_step.clear()

    def release(self, holder: object) -> None:
        """Take a `hold` back, if there is one."""
        self._holders.discard(holder)
        if not self._holders:
            self._may_step.set()

    @property
    def rest(self) -> object:
        """None while there is work; else something that differs from the last rest's if requests came between."""
        if self._death is None and (self._scheduler.has_work or self._scheduler.is_step_in_flight):
            return None
        return self._scheduler.counters.num_requests, self._death

    @property
    def num_requests(self) -> int:
        """Waiting and running."""
        return self._scheduler.num_running + self._scheduler.num_waiting

    @property
    def is_held(self) -> bool:
        """Somebody holds it."""
        return bool(self._holders)

    def stats(self) -> EngineStats:
        stats = snapshot(self._scheduler, is_alive=self._death is None, is_draining=self._is_draining)
        return msgspec.structs.replace(stats, latencies=self._latencies.snapshot())

    def count_refused_unread(self, num_requests: int) -> None:
        """A worker has refused so many requests because the queue was full, without asking."""
        self._scheduler.admission.num_rejected += num_requests

    async def records(self, query: RecordQuery) -> list[RequestRecord]:
        """What is remembered of the requests that live and of the last ones that ended."""
        return self.find_records(query)

    def find_records(self, query: RecordQuery) -> list[RequestRecord]:
        """`records`, for callers that cannot wait."""
        scheduler = self._scheduler
        return self._book.find(query, lambda ids: scheduler.journal.so_far(ids, self._clock()), scheduler.waiting)

    async def look(self) -> EngineLook:
        """Who holds which blocks, who runs and who waits; raises EngineDead."""
        return self.look_now()

    def look_now(self) -> EngineLook:
        """`look`, for callers that cannot wait."""
        if self._death is not None:
            raise EngineDead(self._death)
        scheduler, began_s = self._scheduler, self._clock()
        cells, shared = look_at_blocks(scheduler)
        return EngineLook(
            at_s=began_s,
            cells=cells,
            shared=shared,
            running=look_at_batch(scheduler, began_s),
            waiting=look_at_queue(scheduler, began_s),
            num_waiting=scheduler.num_waiting,
            num_blocks=scheduler.pool.num_blocks,
            num_free_blocks=scheduler.pool.num_free_blocks,
            num_cached_blocks=scheduler.pool.num_cached_blocks,
            counters=count_so_far(scheduler, self._latencies.snapshot()),
            took_s=self._clock() - began_s,
        )

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, let the running ones end within the time, abort the rest, and stop."""
        self._is_draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            for request_id in self._book.records.live_ids(RecordQuery()):
                self.abort(request_id)
        self._loop_task.cancel()
        await asyncio.gather(self._loop_task, return_exceptions=True)
        self._idle.set()  # drained twice, the second call has nothing to wait for
        await asyncio.to_thread(self._executor.shutdown)

    async def wait_until_ended(self) -> None:
        """Return when the loop has ended: after `drain`, or because something has killed it."""
        await asyncio.wait({self._loop_task})

    async def _run(self) -> None:
        """schedule -> execute -> commit until cancelled; whatever escapes a step kills the engine, loudly."""
        try:
            while True:
                await self._step()
        except Exception as error:
            log.exception("engine_died")
            self._die(f"the engine stopped: {type(error).__name__}")

    async def _step(self) -> None:
        """Plan a step, or none where nothing can be planned now, and commit the oldest one that is over."""
        scheduler = self._scheduler
        if not scheduler.has_work and not scheduler.is_step_in_flight:
            await self._rest()
        await self._may_step.wait()
        self._deliver(scheduler.expire(self._clock()))
        plan = scheduler.schedule(self._clock())
        if plan is None and not scheduler.is_step_in_flight:  # everything expired just now
            await asyncio.sleep(0)
            return
        with self.timer:
            output = await asyncio.get_running_loop().run_in_executor(self._executor, self._pipeline.advance, plan)
        if output is not None:
            self._commit(output)

    async def _rest(self) -> None:
        """Until there is work."""
        if (fault := self._scheduler.repair_idle()) is not None:
            log.error("integrity_fault_repaired", fault=fault)
        self._idle.set()
        self._wake.clear()
        await self._wake.wait()

    def _commit(self, output: StepOutput) -> None:
        scheduler, now_s = self._scheduler, self._clock()
        plan = scheduler.oldest_in_flight
        began_s = max(plan.began_s, self._last_step_s)
        self._latencies.decode_step(now_s - self._last_step_s, plan.num_decodes)
        self._last_step_s = now_s
        if self.step_spans is not None:
            self.step_spans.observe(plan, scheduler, began_s, now_s)
        self._deliver(scheduler.commit(output, now_s))

    def _deliver(self, deltas: list[GenerationDelta]) -> None:
        self._note(deltas)
        sinks = self._sinks
        for delta in deltas:
            sink = sinks.get(delta.request_id)
            if sink is None:
                continue
            sink.put(delta)
            if delta.finish_reason is not None and sink.is_closed:
                del sinks[delta.request_id]
            elif sink.is_stalled:
                self._drop(sink)

    def _note(self, deltas: list[GenerationDelta]) -> None:
        for record in self._book.note(deltas):
            self._latencies.end(record)
        if self._followers:
            for delta in deltas:
                self._tell(self._followers.get(delta.request_id, ()))

    def _tell(self, followers: Iterable[asyncio.Future[None]]) -> None:
        """Wake those that wait for news of a request."""
        for news in followers:
            if not news.done():
                news.set_result(None)

    def _drop(self, sink: DeltaSink) -> None:
        """End a request that nobody reads, so that nothing of it piles up; a detached one goes on without a reader."""
        log.warning("slow_reader_dropped", request_id=sink.request_id)
        del self._sinks[sink.request_id]
        sink.end(FinishReason.ERROR, "the reader fell too far behind")
        if not self._book.is_detached(sink.request_id):
            self._note(self._scheduler.abort(sink.request_id, self._clock()))

    def _die(self, reason: str) -> None:
        """End every open request with an error: nobody is left waiting."""
        self._death = reason
        for sink in list(self._sinks.values()):
            sink.end(FinishReason.LOST, reason)
        self._sinks.clear()
        self._tell([news for followers in self._followers.values() for news in followers])
        self._idle.set()
