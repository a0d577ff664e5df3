"""One HTTP request's generation: admission of its prompts, text of every sample, its end; knows no HTTP, no JSON.

Several prompts with n samples each become choices 0, 1, 2, ...: choice = prompt index * n + sample index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

import structlog

from contracts.engine import DeltaStream, Engine
from contracts.errors import (
    DeadlineExceeded,
    EngineDead,
    EngineError,
    QuireError,
    RequestCancelled,
    ShuttingDown,
)
from contracts.followed import FollowedStream
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, PhaseTimes
from contracts.openai.common import PromptTokensDetails, Usage
from contracts.records import RecordQuery, SampleRecord
from service.detokenizer import SampleText, TextPiece, sample_texts
from service.tokenizer import TextTokenizer
from service.translate import TextRequest

LOST_RETRY_AFTER_S = 5.0
_log = structlog.get_logger("service.generation")

ChoicePiece = tuple[int, TextPiece]
"""Choice index, and what it says next."""


class GenerationStream:
    """Owner of the engine requests behind one HTTP request, from admission to `close`.

    Life cycle: `submit` admits all prompts or none; `take` until it returns nothing or raises; `close` at the end of
    every path, which aborts whatever still runs. A prompt whose samples have all ended by a stop string is ended at
    once, as the engine does not know.

    One that was made by `follow` reads a request that was submitted elsewhere: its `close` changes nothing there.
    """

    def __init__(self, engine: Engine, tokenizer: TextTokenizer, requests: Sequence[TextRequest]) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._prompts = [_Prompt(request, sample_texts(tokenizer, request)) for request in requests]
        self._choices_per_prompt = requests[0].generation.num_samples
        self._prompt_of = {request.generation.request_id: index for index, request in enumerate(requests)}
        self._streams: list[DeltaStream] = []
        self._followed: FollowedStream | None = None
        self._tenant: str | None = None
        """On whose behalf it follows."""
        self._error: QuireError | None = None
        """Why a sample failed, to be raised when the text before it has been taken."""
        self._merger: _Merger | None = None
        self._num_open = len(requests)
        self.records: list[SampleRecord] = []
        """Of the samples that have ended, as the engine tells it."""

    @classmethod
    async def submit(cls, engine: Engine, tokenizer: TextTokenizer, requests: Sequence[TextRequest]) -> Self:
        """Admit every prompt; where one is refused the others are aborted and the refusal is raised."""
        generation = cls(engine, tokenizer, requests)
        try:
            for request in requests:
                generation._streams.append(await engine.submit(request.generation))
        except BaseException:
            generation.close()
            raise
        if len(generation._streams) > 1:
            generation._merger = _Merger(generation._streams)
        return generation

    @classmethod
    async def follow(
        cls, engine: Engine, tokenizer: TextTokenizer, request: TextRequest, tenant: str | None
    ) -> GenerationStream:
        """Read what a request has said and will say; raises RequestNotFound, EventsGone or EngineDead.

        Of `request.generation`, only its id and the number of samples matter.
        """
        generation = cls(engine, tokenizer, [request])
        generation._tenant = tenant
        generation._followed = await engine.follow(request.generation.request_id, tenant)
        return generation

    async def follower(self) -> GenerationStream:
        """Another reader of the same request, which has a single prompt."""
        tenant = self.request.tenant.name
        return await GenerationStream.follow(self._engine, self._tokenizer, self._prompts[0].request, tenant)

    @property
    def num_choices(self) -> int:
        return len(self._prompts) * self._choices_per_prompt

    @property
    def request(self) -> GenerationRequest:
        """What the engine was asked for with the first prompt."""
        return self._prompts[0].request.generation

    async def all_records(self) -> list[SampleRecord]:
        """`records`, asking the engine where it has ended samples of which nothing was heard."""
        if len(self.records) == self.num_choices:
            return self.records
        ids = [prompt.request.generation.request_id for prompt in self._prompts]
        found = [await self._engine.records(RecordQuery(any_id=request_id, limit=1)) for request_id in ids]
        return [sample for answer in found for record in answer for sample in record.samples]

    @property
    def finish_reasons(self) -> list[str]:
        """Of the choices that have ended."""
        samples = (sample for prompt in self._prompts for sample in prompt.samples)
        return [sample.finish_reason for sample in samples if sample.finish_reason is not None]

    @property
    def times(self) -> PhaseTimes | None:
        """Of the sample that ended last."""
        known = [prompt.times for prompt in self._prompts if prompt.times is not None]
        return known[-1] if known else None

    def usage(self) -> Usage:
        """Tokens so far; a prompt counts once, whatever its number of samples."""
        prompt_tokens = sum(prompt.request.num_prompt_tokens for prompt in self._prompts)
        completion_tokens = sum(sample.num_tokens for prompt in self._prompts for sample in prompt.samples)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=sum(prompt.num_cached_tokens for prompt in self._prompts)
            ),
        )

    async def take(self) -> list[ChoicePiece]:
        """Wait for text and return all that is ready; an empty list says that every choice has ended.

        Raises EngineError, DeadlineExceeded, RequestCancelled or ShuttingDown when a sample ended otherwise than by
        stop or length, after all that was said before.
        """
        pieces: list[ChoicePiece] = []
        while not pieces and self._num_open:
            if self._error is not None:
                raise self._error
            deltas = await (self._merger or self._followed or self._streams[0]).take()
            if not deltas:
                raise EngineError("The engine ended this request without a result.")
            self._push_all(deltas, pieces)
        return pieces

    def _push_all(self, deltas: list[GenerationDelta], pieces: list[ChoicePiece]) -> None:
        """How deltas come together must not change what is said: a failure waits for the text before it."""
        for delta in deltas:
            try:
                self._push(delta, pieces)
            except QuireError as error:
                self._error = error
                return

    def close(self) -> None:
        """Abort what still runs; may be called at any time and again."""
        for stream, prompt in zip(self._streams, self._prompts, strict=False):
            if not prompt.is_ended:
                prompt.is_ended = True
                self._engine.abort(stream.request_id)
        if self._merger is not None:
            self._merger.close()
        if self._followed is not None:
            self._followed.close()

    def _push(self, delta: GenerationDelta, pieces: list[ChoicePiece]) -> None:
        index = self._prompt_of[delta.request_id]
        prompt = self._prompts[index]
        sample = prompt.samples[delta.sample_index]
        if delta.record is not None:
            self.records.append(delta.record)
        if delta.times is not None:
            prompt.times = delta.times
        if sample.finish_reason is not None:
            return
        if delta.sample_index == 0 and delta.num_cached_tokens:
            prompt.num_cached_tokens = delta.num_cached_tokens
        if delta.finish_reason is not None and not delta.finish_reason.is_complete:
            raise self._failure(delta)
        piece = sample.push(delta)
        if piece.text or piece.finish_reason is not None or piece.logprobs:
            pieces.append((index * self._choices_per_prompt + delta.sample_index, piece))
        if piece.finish_reason is not None:
            self._end_sample(prompt, is_known_to_engine=delta.finish_reason is not None)

    def _failure(self, delta: GenerationDelta) -> QuireError:
        """What the caller is told; the engine's own words go to the log."""
        if delta.finish_reason is FinishReason.DEADLINE:
            return DeadlineExceeded("The request did not end within its time limit; try again later or ask for less.")
        if delta.finish_reason is FinishReason.CANCELLED:
            return RequestCancelled("The request was cancelled.")
        if delta.finish_reason is FinishReason.ABORT and self._followed is not None:
            return RequestCancelled("The request was ended when its client left, or because the server stopped.")
        if delta.finish_reason is FinishReason.ABORT:
            return ShuttingDown("The server is stopping, or unloads the model, and ended this request; send it again.")
        _log.error("generation_failed", reason=delta.error, sample_index=delta.sample_index)
        if delta.finish_reason is FinishReason.LOST:
            return EngineDead("The engine stopped under this request; send it again.", retry_after_s=LOST_RETRY_AFTER_S)
        return EngineError("The engine failed on this request; the server's log says why.")

    def _end_sample(self, prompt: _Prompt, *, is_known_to_engine: bool) -> None:
        prompt.num_open -= 1
        prompt.num_unknown_to_engine += not is_known_to_engine
        if prompt.num_open == 0 and not prompt.is_ended:
            prompt.is_ended = True
            self._num_open -= 1
            if prompt.num_unknown_to_engine:
                self._complete(prompt.request.generation)

    def _complete(self, request: GenerationRequest) -> None:
        """All samples of a prompt have said what they were to say: let the engine know."""
        if self._followed is None:
            self._engine.abort(request.request_id, FinishReason.STOP)
        else:  # its own worker may be gone
            self._engine.cancel(request.request_id, self._tenant, FinishReason.STOP)


class _Prompt:
    """Progress of one prompt; written by its GenerationStream only."""

    __slots__ = ("is_ended", "num_cached_tokens", "num_open", "num_unknown_to_engine", "request", "samples", "times")

    def __init__(self, request: TextRequest, samples: list[SampleText]) -> None:
        self.request = request
        self.samples = samples
        self.num_open = len(samples)
        self.num_unknown_to_engine = 0
        self.num_cached_tokens = 0
        self.times: PhaseTimes | None = None
        self.is_ended = False


class _Merger:
    """Takes from several streams at once; one task per stream, ended by `close`."""

    def __init__(self, streams: Sequence[DeltaStream]) -> None:
        self._ready: list[GenerationDelta] = []
        self._has_news = asyncio.Event()
        self._num_running = len(streams)
        self._tasks = [asyncio.create_task(self._pump(stream)) for stream in streams]

    async def take(self) -> list[GenerationDelta]:
        """Everything that is ready on any stream; empty when all are over."""
        while not self._ready:
            if self._num_running == 0:
                return []
            self._has_news.clear()
            await self._has_news.wait()
        taken, self._ready = self._ready, []
        return taken

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _pump(self, stream: DeltaStream) -> None:
        try:
            while deltas := await stream.take():
                self._ready.extend(deltas)
                self._has_news.set()
        finally:
            self._num_running -= 1
            self._has_news.set()
