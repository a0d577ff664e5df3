"""What the clients of a soak ask, as a pure function of seed and index. Knows nothing of connections.

Of all requests 5 % are invalid; of the valid ones 20 % are given up at a random moment, and a few are read slowly.
"""

from __future__ import annotations

import enum
import random

import msgspec

from service.bench.workload import LengthRange, draw_log_uniform, draw_tokens, spell_word

INVALID_FRACTION = 0.05
ABORT_FRACTION = 0.2
MAX_ABORT_WAIT_S = 0.3
MAX_ABORT_LATE_S = 3.0
MAX_ABORT_EVENTS = 24
SLOW_PAUSE_S = 0.1
NUM_TOPICS = 40
"""Chats about one topic begin alike, so that they meet in the prefix cache."""


class Kind(enum.Enum):
    """What a request exercises."""

    CHAT_STREAM = "chat, streamed"
    CHAT_ONCE = "chat, one-shot"
    SHORT_STREAM = "short prompt"
    LONG_PROMPT = "long prompt"
    SEVERAL_SAMPLES = "n above 1"
    SLOW_READER = "slow reader"
    INVALID = "invalid"


class AbortPhase(enum.Enum):
    """When a client gives up."""

    UPLOAD = "in the middle of its body"
    WAITING = "soon after sending"
    STREAMING = "after some events"
    LATE = "at any time"


class Abort(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is given up: after a time, after events, or before its body is sent."""

    phase: AbortPhase
    after_s: float = 0.0
    after_events: int | None = None


class SoakRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what its client does with the answer."""

    index: int
    kind: Kind
    path: str
    body: bytes
    num_samples: int = 1
    is_streamed: bool = True
    abort: Abort | None = None
    pause_s: float = 0.0
    """Between two reads of the answer."""


KIND_WEIGHTS = {
    Kind.CHAT_STREAM: 30,
    Kind.CHAT_ONCE: 15,
    Kind.SHORT_STREAM: 25,
    Kind.LONG_PROMPT: 15,
    Kind.SEVERAL_SAMPLES: 10,
    Kind.SLOW_READER: 5,
}
LONG_PROMPT = LengthRange(400, 1000)
SHORT_PROMPT = LengthRange(8, 64)

_CHAT: dict[str, object] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
INVALID_REQUESTS: tuple[tuple[str, bytes | dict[str, object]], ...] = (
    ("/chat/completions", b'{"messages": ['),
    ("/chat/completions", b"\xff\xfe"),
    ("/chat/completions", b"[" * 5000),
    ("/chat/completions", {**_CHAT, "messages": []}),
    ("/chat/completions", {**_CHAT, "n": 0}),
    ("/chat/completions", {**_CHAT, "temperature": "warm"}),
    ("/chat/completions", {**_CHAT, "max_tokens": 10**12}),
    ("/chat/completions", {**_CHAT, "no_such_field": 1}),
    ("/chat/completions", {**_CHAT, "model": "no-such-model"}),
    ("/completions", {"prompt": [-1], "max_tokens": 4}),
    ("/completions", {"prompt": [2**62], "max_tokens": 4}),
    ("/completions", {"prompt": "", "logprobs": -3}),
)
"""Each must be refused with a status of 400 to 499, whatever else is running."""


def plan_soak_request(seed: int, index: int, model: str, vocab_size: int) -> SoakRequest:
    """Request `index` of the soak; the same arguments always give the same request."""
    rng = random.Random(f"{seed}/soak/{index}")
    if rng.random() < INVALID_FRACTION:
        path, fault = rng.choice(INVALID_REQUESTS)
        body = fault if isinstance(fault, bytes) else msgspec.json.encode({"model": model, **fault})
        return SoakRequest(index=index, kind=Kind.INVALID, path=path, body=body, is_streamed=False)
    (kind,) = rng.choices(list(KIND_WEIGHTS), weights=list(KIND_WEIGHTS.values()))
    is_streamed = kind is not Kind.CHAT_ONCE
    num_samples = rng.randint(2, 4) if kind is Kind.SEVERAL_SAMPLES else 1
    fields = {"model": model, "stream": is_streamed, "n": num_samples, "max_tokens": _draw_output_len(rng, kind)}
    fields |= _draw_prompt(rng, kind, vocab_size)
    return SoakRequest(
        index=index,
        kind=kind,
        path="/chat/completions" if "messages" in fields else "/completions",
        body=msgspec.json.encode(fields),
        num_samples=num_samples,
        is_streamed=is_streamed,
        abort=_draw_abort(rng, is_streamed=is_streamed) if rng.random() < ABORT_FRACTION else None,
        pause_s=SLOW_PAUSE_S if kind is Kind.SLOW_READER else 0.0,
    )


def _draw_output_len(rng: random.Random, kind: Kind) -> int:
    is_long = kind in (Kind.SLOW_READER, Kind.LONG_PROMPT)
    return rng.randint(60, 200) if is_long else rng.randint(4, 120)


def _draw_prompt(rng: random.Random, kind: Kind, vocab_size: int) -> dict[str, object]:
    """The prompt fields, with sampling that differs from request to request."""
    sampling: dict[str, object] = {"temperature": rng.choice([0, 0.7, 1]), "seed": rng.randrange(2**31)}
    if kind in (Kind.CHAT_STREAM, Kind.CHAT_ONCE):
        topic = " ".join(spell_word(word) for word in range(10 * rng.randrange(NUM_TOPICS), 1000, 97))
        question = " ".join(spell_word(rng.randrange(4000)) for _ in range(rng.randint(1, 20)))
        return {**sampling, "messages": [{"role": "user", "content": f"{topic} {question}"}]}
    prompt_len = draw_log_uniform(rng, LONG_PROMPT if kind is Kind.LONG_PROMPT else SHORT_PROMPT)
    tokens = draw_tokens(f"{rng.random()}", prompt_len, "ids", vocab_size)
    return {**sampling, "prompt": tokens, "ignore_eos": True}


def _draw_abort(rng: random.Random, *, is_streamed: bool) -> Abort:
    phase = rng.choice(list(AbortPhase))
    if phase is AbortPhase.STREAMING and is_streamed:
        return Abort(phase=phase, after_events=rng.randint(1, MAX_ABORT_EVENTS))
    longest_s = MAX_ABORT_LATE_S if phase is AbortPhase.LATE else MAX_ABORT_WAIT_S
    return Abort(phase=phase, after_s=rng.uniform(0, longest_s))
