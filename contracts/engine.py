"""The seam between service and engine: a handful of methods, and the stream that carries results back.

Two implementations exist behind it, in process and over a socket; callers cannot tell them apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

import msgspec

from contracts.followed import FollowedStream
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, final_deltas
from contracts.latencies import Latencies
from contracts.live import EngineLook
from contracts.records import RecordQuery, RequestRecord
from contracts.sampling import SamplingDefaults

MAX_UNREAD_DELTAS = 256
"""Deltas that may wait in a DeltaStream before its reader counts as stalled."""
STALL_S = 1.0
"""How long a reader that is so far behind may stay away; a busy event loop alone does not end a request."""


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine serves; fixed once it has started."""

    model_name: str
    model_path: str
    """Local directory that holds tokenizer.json and the chat template."""
    architecture: str
    device: str
    dtype: str
    vocab_size: int
    """Rows of the output matrix: valid token ids are 0 <= id < vocab_size."""
    max_model_len: int
    eos_token_ids: list[int]
    block_size: int
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_parameters: int
    sampling_defaults: SamplingDefaults = SamplingDefaults()
    fingerprint: str
    """Changes whenever the same seed may give other text: version, model, dtype, kernels."""

    @property
    def num_cache_tokens(self) -> int:
        return self.num_blocks * self.block_size


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the engine between two steps, and counters since it started."""

    num_running: int
    num_waiting: int
    num_waiting_tokens: int
    num_free_blocks: int
    """Blocks that no live sequence refers to (cached ones count as free)."""
    num_cached_blocks: int
    """Of the free blocks, those whose content can still be matched as a prefix."""
    num_blocks: int
    num_steps: int
    num_requests: int
    num_finished: int
    num_aborted: int
    num_failed: int
    num_rejected: int
    """Requests refused because the queue was full."""
    num_rate_limited: int = 0
    """Requests refused because their tenant had reached one of its limits."""
    num_preemptions: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_scheduled_seqs: int
    """Sum over steps of the sequences in the batch: divided by num_steps, the mean batch size."""
    step_time_s: float
    """Sum over steps of the time in the model and the sampler."""
    num_out_of_memory: int = 0
    """Steps that ran out of memory and were computed in parts."""
    num_consecutive_oom: int = 0
    """How many of the last steps did so in a row; 0 once a step fits again or the engine is idle."""
    num_integrity_faults: int = 0
    """How often the engine found its own books wrong while idle, and began new ones: a bug, to be reported."""
    is_alive: bool
    is_draining: bool
    latencies: Latencies = Latencies()
    num_drafts: int = 0
    """Draft tokens that were verified."""
    num_accepted_drafts: int = 0
    """Of these, those that came true: each is a token that took no step of its own."""


class DeltaStream:
    """The results of one request: the engine puts, one consumer takes everything that is ready.

    Owner: the task that called `submit`; both sides run in the same event loop. A request with n samples ends when
    each has sent its final delta; the stream then ends too. A failure of the whole engine arrives as final deltas
    with `finish_reason` LOST, never as silence.
    """

    __slots__ = ("_first_unread_s", "_open", "_pending", "_waiter", "request_id")

    def __init__(self, request_id: str, num_samples: int) -> None:
        self.request_id = request_id
        self._open = set(range(num_samples))
        self._pending: deque[GenerationDelta] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._first_unread_s = 0.0

    @property
    def is_closed(self) -> bool:
        """Every sample has sent its final delta; the engine has nothing more to put."""
        return not self._open

    @property
    def open_samples(self) -> list[int]:
        """Samples that have not ended."""
        return sorted(self._open)

    @property
    def is_finished(self) -> bool:
        """Every sample has ended and everything was taken."""
        return not self._open and not self._pending

    @property
    def is_stalled(self) -> bool:
        """The reader is too far behind, and has been away for too long: the engine ends the request."""
        return len(self._pending) > MAX_UNREAD_DELTAS and time.monotonic() - self._first_unread_s > STALL_S

    def put(self, delta: GenerationDelta) -> None:
        """Append one delta; only the engine calls this."""
        if not self._pending:
            self._first_unread_s = time.monotonic()
        self._pending.append(delta)
        if delta.finish_reason is not None:
            self._open.discard(delta.sample_index)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """End every sample that has not ended; only the engine calls this."""
        for delta in final_deltas(self.request_id, self._open, reason, error):
            self.put(delta)

    async def take(self) -> list[GenerationDelta]:
        """Wait until something is ready and return all of it; an empty list says that the stream is over."""
        while not self._pending:
            if not self._open:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        taken = list(self._pending)
        self._pending.clear()
        return taken


class Engine(Protocol):
    """What the service knows of an engine."""

    @property
    def info(self) -> EngineInfo:
        """What is served; constant."""
        ...

    async def submit(self, request: GenerationRequest) -> DeltaStream:
        """Admit a request, or raise ContextLengthExceeded, InvalidValue, QueueFull, RateLimited, ShuttingDown or
        EngineDead."""
        ...

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request that was submitted here at the next step boundary and free its blocks; unknown or ended ids
        are ignored. `reason` says why: ABORT, or STOP where its text is complete and the engine cannot know."""
        ...

    def cancel(self, any_id: str, tenant: str | None, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """The same, whoever submitted it, for all that the id names (as in RecordQuery) and that is this tenant's
        (None: anybody's); whoever asks for records afterwards finds it done."""
        ...

    async def follow(self, request_id: str, tenant: str | None) -> FollowedStream:
        """Read a request from its first delta on, live or ended, whoever submitted it; its own stream is not touched.

        Raises RequestNotFound, EventsGone or EngineDead. Whoever follows closes the stream.
        """
        ...

    def stats(self) -> EngineStats:
        """A snapshot; never waits for the step in flight."""
        ...

    async def records(self, query: RecordQuery) -> list[RequestRecord]:
        """What the engine remembers of its requests; raises EngineDead."""
        ...

    async def look(self) -> EngineLook:
        """Who holds which blocks, who runs and who waits, made for whoever asks; raises EngineDead."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, let the running ones end within the time, abort the rest, and stop."""
        ...
