"""What is asked: lengths, prompts and request bodies, all a pure function of the seed, a label and an index.

Lengths depend on (seed, index) only, so that every level and round has the same ones; contents also depend on the
label, so that no level finds the prompts of an earlier one in a prefix cache. Knows nothing of HTTP or time.
"""

from __future__ import annotations

import math
import random
from typing import Literal

import msgspec

PromptKind = Literal["ids", "text"]
Endpoint = Literal["completions", "chat"]

MARGIN_TOKENS = 10
"""Ids this close to either end of the vocabulary are not drawn: special tokens live there."""
FIRST_WORD_ID = 300
"""Words are numbered from here: in the models of ops/bench the lower ids are bytes, not words."""
SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]


class LengthRange(msgspec.Struct, frozen=True):
    """An inclusive range of lengths in tokens."""

    low: int
    high: int


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides the requests of a run."""

    seed: int = 0
    prompt_tokens: LengthRange = LengthRange(32, 512)
    output_tokens: LengthRange = LengthRange(32, 128)
    shared_prefix_tokens: int = 0
    """Tokens put before every prompt, the same for all requests of the run."""
    vocab_size: int = 4000


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request before it is bound to a server; `prompt` is token ids or text."""

    index: int
    prompt: list[int] | str
    prompt_len: int
    output_len: int


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One OpenAI-compatible server and how it wants to be asked."""

    name: str
    base_url: str
    model: str
    endpoint: Endpoint = "completions"
    prompt_kind: PromptKind = "ids"
    is_eos_ignored: bool = True
    api_key: str | None = None


def draw_log_uniform(rng: random.Random, lengths: LengthRange) -> int:
    """Draw a length whose logarithm is uniform: as many of 32-64 as of 256-512."""
    exponent = rng.uniform(math.log(lengths.low), math.log(lengths.high))
    return min(lengths.high, max(lengths.low, round(math.exp(exponent))))


def draw_lengths(spec: WorkloadSpec, index: int) -> tuple[int, int]:
    """Prompt length (log-uniform, without the shared prefix) and output length (uniform) of request `index`."""
    rng = random.Random(f"{spec.seed}/lengths/{index}")
    return draw_log_uniform(rng, spec.prompt_tokens), rng.randint(spec.output_tokens.low, spec.output_tokens.high)


def spell_word(number: int) -> str:
    """A pronounceable word of three syllables; distinct numbers below 512,000 give distinct words."""
    number, third = divmod(number, len(SYLLABLES))
    number, second = divmod(number, len(SYLLABLES))
    return SYLLABLES[number % len(SYLLABLES)] + SYLLABLES[second] + SYLLABLES[third]


def draw_tokens(seed_text: str, num_tokens: int, kind: PromptKind, vocab_size: int) -> list[int]:
    """Ids (or word numbers) drawn evenly from the vocabulary without its margins."""
    low = MARGIN_TOKENS if kind == "ids" else FIRST_WORD_ID
    high = max(low + 1, vocab_size - MARGIN_TOKENS)
    return random.Random(seed_text).choices(range(low, high), k=num_tokens)


def plan_request(spec: WorkloadSpec, label: str, index: int, kind: PromptKind) -> PlannedRequest:
    """Request `index` of the stream named `label`; the same arguments always give the same request."""
    prompt_len, output_len = draw_lengths(spec, index)
    prefix = draw_tokens(f"{spec.seed}/prefix", spec.shared_prefix_tokens, kind, spec.vocab_size)
    tokens = prefix + draw_tokens(f"{spec.seed}/{label}/{index}", prompt_len, kind, spec.vocab_size)
    prompt = tokens if kind == "ids" else "".join(" " + spell_word(token) for token in tokens)
    return PlannedRequest(index=index, prompt=prompt, prompt_len=len(tokens), output_len=output_len)


def encode_body(target: Target, request: PlannedRequest) -> bytes:
    """The JSON body: streaming, greedy, with usage at the end and, unless refused there, no early stop."""
    body: dict[str, object] = {
        "model": target.model,
        "max_tokens": request.output_len,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if target.is_eos_ignored:
        body["ignore_eos"] = True
    if target.endpoint == "chat":
        body["messages"] = [{"role": "user", "content": request.prompt}]
    else:
        body["prompt"] = request.prompt
    return msgspec.json.encode(body)


def draw_arrivals_s(seed: int, rate_per_s: float, num_requests: int) -> list[float]:
    """Poisson arrival times in seconds from the start of the level."""
    rng = random.Random(f"{seed}/arrivals/{rate_per_s}")
    arrivals_s: list[float] = []
    now_s = 0.0
    while len(arrivals_s) < num_requests:
        arrivals_s.append(now_s)
        now_s += rng.expovariate(rate_per_s)
    return arrivals_s
