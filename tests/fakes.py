"""Fakes that stand behind the real protocols: an engine that follows a script, and a tokenizer of bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from contracts.engine import DeltaStream, EngineInfo, EngineStats
from contracts.errors import QuireError, RequestNotFound
from contracts.followed import EventSlice, FollowedStream
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, PhaseTimes, TokenLogprob
from contracts.live import EngineLook, LiveCounters
from contracts.records import RecordQuery, RequestRecord

EOS = 257
VOCAB_SIZE = 272
"""256 bytes, two control tokens, and padding rows as real models have them."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)

Script = Callable[[GenerationRequest, int], list[int]]
"""Token ids that a sample of a request produces; the end-of-sequence token may be among them."""


def write_byte_model(directory: Path) -> Path:
    """A model directory whose tokenizer has one token per byte; returns the directory."""
    alphabet = {character: byte for byte, character in _byte_characters().items()}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}


def say(text: str) -> Script:
    """Every sample says the text and ends its turn."""
    return lambda request, sample: [*text.encode(), EOS]


@dataclass
class _Sample:
    """What one sample still has to say."""

    request: GenerationRequest
    index: int
    stream: DeltaStream
    tokens: list[int]
    num_deltas: int = 0
    num_said: int = 0


class FakeEngine:
    """Follows `script` in steps, as a real engine does: each gives every running sample `tokens_per_delta` tokens.

    With `gate` closed no step begins. Records what was asked, what was aborted, and how many tokens it produced.
    `refusal` is raised by `submit` once `num_before_refusal` requests were admitted; `fail_after` ends samples with
    `failure` after as many deltas.
    """

    def __init__(
        self,
        model_path: Path,
        script: Script,
        *,
        tokens_per_delta: int = 1,
        interval_s: float = 0.0,
        model_name: str = "fake/model",
        max_model_len: int = 4096,
    ) -> None:
        self._info = fake_engine_info(model_path, model_name, max_model_len)
        self.script = script
        self.tokens_per_delta = tokens_per_delta
        self.interval_s = interval_s
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusal: QuireError | None = None
        self.num_before_refusal = 0
        self.fail_after: int | None = None
        self.failure = FinishReason.ERROR
        self.num_cached_tokens = 0
        self.is_alive = True
        self.num_consecutive_oom = 0
        self.requests: list[GenerationRequest] = []
        self.aborted: list[str] = []
        self.drains: list[float] = []
        self.queries: list[RecordQuery] = []
        self.remembered: list[RequestRecord] = []
        self.sight: EngineLook | QuireError = empty_look()
        self.num_looks = 0
        self.has_aborted = asyncio.Event()
        self.has_started = asyncio.Event()
        self.num_generated_tokens = 0
        self.cancelled: list[tuple[str, str | None, FinishReason]] = []
        self.abort_reasons: list[FinishReason] = []
        self._logs: dict[str, list[GenerationDelta]] = {}
        self._news = asyncio.Event()
        self._samples: list[_Sample] = []
        self._steps: asyncio.Task[None] | None = None

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def submit(self, request: GenerationRequest) -> DeltaStream:
        if self.refusal is not None and len(self.requests) >= self.num_before_refusal:
            raise self.refusal
        self.requests.append(request)
        self._logs[request.request_id] = []
        stream = DeltaStream(request.request_id, request.num_samples)
        for index in range(request.num_samples):
            tokens = self.script(request, index)[: request.sampling.max_tokens]
            self._samples.append(_Sample(request, index, stream, tokens))
        if self._steps is None or self._steps.done():
            self._steps = asyncio.create_task(self._run())
        self.has_started.set()
        return stream

    async def follow(self, request_id: str, tenant: str | None) -> FollowedStream:
        if request_id not in self._logs:
            raise RequestNotFound("no such request")

        async def read(after: int, is_waiting: bool) -> EventSlice:
            log = self._logs[request_id]
            while is_waiting and len(log) <= after and self._is_open(request_id):
                self._news.clear()
                await self._news.wait()
            return EventSlice(log[after:], is_over=not self._is_open(request_id))

        stream = FollowedStream(request_id, read, lambda stream: None)
        await stream.open()
        return stream

    def _is_open(self, request_id: str) -> bool:
        return any(sample.request.request_id == request_id for sample in self._samples)

    def cancel(self, any_id: str, tenant: str | None, reason: FinishReason = FinishReason.CANCELLED) -> None:
        self.cancelled.append((any_id, tenant, reason))

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        self.aborted.append(request_id)
        self.abort_reasons.append(reason)
        self.has_aborted.set()
        self._samples = [sample for sample in self._samples if sample.request.request_id != request_id]

    def stats(self) -> EngineStats:
        num_running = len({sample.request.request_id for sample in self._samples})
        return EngineStats(
            num_running=num_running,
            num_waiting=0,
            num_waiting_tokens=0,
            num_free_blocks=self._info.num_blocks - num_running,
            num_cached_blocks=0,
            num_blocks=self._info.num_blocks,
            num_steps=0,
            num_requests=len(self.requests),
            num_finished=0,
            num_aborted=len(self.aborted),
            num_failed=0,
            num_rejected=0,
            num_preemptions=0,
            num_prompt_tokens=0,
            num_cached_tokens=0,
            num_generated_tokens=self.num_generated_tokens,
            num_scheduled_seqs=0,
            step_time_s=0.0,
            num_consecutive_oom=self.num_consecutive_oom,
            is_alive=self.is_alive,
            is_draining=bool(self.drains),
        )

    async def records(self, query: RecordQuery) -> list[RequestRecord]:
        self.queries.append(query)
        return self.remembered[: query.limit]

    async def look(self) -> EngineLook:
        self.num_looks += 1
        if isinstance(self.sight, QuireError):
            raise self.sight
        return self.sight

    async def drain(self, timeout_s: float) -> None:
        self.drains.append(timeout_s)
        for sample in self._samples:
            sample.stream.put(_final(sample, FinishReason.ABORT))
        self._samples = []

    async def _run(self) -> None:
        while self._samples:
            await asyncio.sleep(self.interval_s)
            await self.gate.wait()
            for sample in self._samples:
                delta = self._next_delta(sample)
                sample.stream.put(delta)
                self._logs[delta.request_id].append(delta)
            self._samples = [sample for sample in self._samples if sample.num_said >= 0]
            self._news.set()

    def _next_delta(self, sample: _Sample) -> GenerationDelta:
        """The sample's next tokens; the last delta marks it as ended."""
        if sample.num_deltas == self.fail_after:
            sample.num_said = -1
            return _final(sample, self.failure)
        start = sample.num_said
        tokens = sample.tokens[start : start + self.tokens_per_delta]
        is_last = start + len(tokens) == len(sample.tokens)
        self.num_generated_tokens += len(tokens)
        sample.num_deltas += 1
        sample.num_said = -1 if is_last else start + len(tokens)
        is_end_token = is_last and tokens[-1:] == [EOS]
        num_top = sample.request.sampling.num_logprobs
        return GenerationDelta(
            request_id=sample.request.request_id,
            sample_index=sample.index,
            token_ids=tokens,
            logprobs=None if num_top is None else [_logprob(token, num_top) for token in tokens],
            num_cached_tokens=self.num_cached_tokens,
            finish_reason=(FinishReason.STOP if is_end_token else FinishReason.LENGTH) if is_last else None,
            ended_by_token=is_end_token,
            times=TIMES if is_last else None,
        )


TIMES = PhaseTimes(submitted_s=10.0, scheduled_s=10.25, first_token_s=10.5, finished_s=11.0)


def _final(sample: _Sample, reason: FinishReason) -> GenerationDelta:
    return GenerationDelta(
        request_id=sample.request.request_id,
        sample_index=sample.index,
        token_ids=[],
        finish_reason=reason,
        error="CUDA error at 0x7f00 in /srv/engine.py" if reason is FinishReason.ERROR else None,
        times=TIMES,
    )


def _logprob(token: int, num_top: int) -> TokenLogprob:
    others = [((token + offset) % 256, -0.5 * offset) for offset in range(num_top)]
    return TokenLogprob(logprob=-0.25, top=[(other, value if value > -1 else float("-inf")) for other, value in others])


def empty_look() -> EngineLook:
    """An engine of eight blocks in which nothing happens."""
    return EngineLook(
        at_s=100.0,
        cells=bytes(16),
        shared=[],
        running=[],
        waiting=[],
        num_waiting=0,
        num_blocks=8,
        num_free_blocks=8,
        num_cached_blocks=0,
        counters=LiveCounters(
            num_steps=0,
            num_requests=0,
            num_ended=0,
            num_preemptions=0,
            num_prompt_tokens=0,
            num_cached_tokens=0,
            num_generated_tokens=0,
            num_scheduled_seqs=0,
            step_time_s=0.0,
            first_token_s=0.0,
            num_first_tokens=0,
            inter_token_s=0.0,
            num_inter_tokens=0,
        ),
        took_s=0.0,
    )


def fake_engine_info(model_path: Path, model_name: str = "fake/model", max_model_len: int = 4096) -> EngineInfo:
    """What a small model would say of itself."""
    return EngineInfo(
        model_name=model_name,
        model_path=str(model_path),
        architecture="FakeForCausalLM",
        device="cpu",
        dtype="float32",
        vocab_size=VOCAB_SIZE,
        max_model_len=max_model_len,
        eos_token_ids=[EOS],
        block_size=16,
        num_blocks=max(1024, max_model_len // 16),
        max_num_seqs=64,
        max_num_batched_tokens=1024,
        num_parameters=1_000,
        fingerprint="quire-fake-0001",
    )
