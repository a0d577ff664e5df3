"""The sampler's semantics in the plainest form: one row at a time, loops over Python numbers, no torch.

Written from the definitions in contracts/sampling.py alone; it shares no code with the sampler.
"""

from __future__ import annotations

import math

import numpy as np

from batching.step import SampledToken, ScheduledSequence
from contracts.generation import TokenLogprob
from contracts.sampling import SamplingParams

SLACK = 1e-6
MASK_32 = 0xFFFFFFFF
MASK_64 = 0xFFFFFFFFFFFFFFFF


def sample_row(
    raw: list[float], row: ScheduledSequence, vocab_size: int, eos_token_ids: frozenset[int]
) -> SampledToken:
    """Choose one token; raw: at least vocab_size logits, each exactly representable in float32."""
    raw = raw[:vocab_size]
    if not is_usable(raw):
        return SampledToken(token_id=0, error="raw")
    logits = edit(raw, row, eos_token_ids)
    if not is_usable(logits):
        return SampledToken(token_id=0, error="edited")
    token_id = choose(logits, row)
    num_logprobs = row.sampling.num_logprobs
    return SampledToken(
        token_id=token_id, logprob=None if num_logprobs is None else logprobs(raw, token_id, num_logprobs)
    )


def is_usable(logits: list[float]) -> bool:
    has_nan = any(math.isnan(logit) for logit in logits)
    return not has_nan and math.inf not in logits and any(logit != -math.inf for logit in logits)


def edit(raw: list[float], row: ScheduledSequence, eos_token_ids: frozenset[int]) -> list[float]:
    """Penalties, bias and the min_tokens mask, each in float32."""
    sampling = row.sampling
    prompt, output = row.prompt_token_ids or [], row.output_token_ids or []
    logits = [np.float32(logit) for logit in raw]
    for token_id in range(len(logits)):
        if token_id in prompt or token_id in output:
            penalty = np.float32(sampling.repetition_penalty)
            logits[token_id] = logits[token_id] / penalty if logits[token_id] > 0 else logits[token_id] * penalty
        if token_id in output:
            logits[token_id] += np.float32(
                -(sampling.presence_penalty + sampling.frequency_penalty * output.count(token_id))
            )
        for biased_id, bias in sampling.logit_bias:
            if biased_id == token_id:
                logits[token_id] += np.float32(bias)
        ends = token_id in sampling.stop_token_ids or (token_id in eos_token_ids and not sampling.ignore_eos)
        if ends and row.num_output_tokens < sampling.min_tokens:
            logits[token_id] = np.float32(-math.inf)
    return [float(logit) for logit in logits]


def choose(logits: list[float], row: ScheduledSequence) -> int:
    ranked = sorted(range(len(logits)), key=lambda token_id: (-logits[token_id], token_id))
    if row.sampling.temperature == 0:
        return ranked[0]
    scaled = [logit / row.sampling.temperature for logit in logits]
    kept = truncate(scaled, ranked, row.sampling)
    position = row.start + len(row.token_ids)
    return max(sorted(kept), key=lambda token_id: scaled[token_id] + gumbel(row.seed, position, token_id))


def truncate(scaled: list[float], ranked: list[int], sampling: SamplingParams) -> list[int]:
    """Token ids that survive top_k, then top_p of what is left, then min_p; ranked: ids, most probable first."""
    kept = ranked[: sampling.top_k] if sampling.top_k else ranked
    largest = scaled[kept[0]]
    weights = [math.exp(scaled[token_id] - largest) for token_id in kept]
    total = math.fsum(weights)
    nucleus: list[int] = []
    for rank, token_id in enumerate(kept):
        if sampling.top_p < 1 and rank > 0 and math.fsum(weights[:rank]) / total >= sampling.top_p - SLACK:
            break
        nucleus.append(token_id)
    return [token_id for token_id in nucleus if math.exp(scaled[token_id] - largest) >= sampling.min_p]


def logprobs(raw: list[float], token_id: int, num_top: int) -> TokenLogprob:
    largest = max(raw)
    normaliser = largest + math.log(math.fsum(math.exp(logit - largest) for logit in raw))
    ranked = sorted(range(len(raw)), key=lambda other: (-raw[other], other))[:num_top]
    top = [(other, raw[other] - normaliser) for other in ranked if raw[other] != -math.inf]
    return TokenLogprob(logprob=raw[token_id] - normaliser, top=top)


def gumbel(seed: int, position: int, token_id: int) -> float:
    uniform = (random_bits(seed, position, token_id) + 0.5) / 2**32
    return -math.log(-math.log(uniform))


def random_bits(seed: int, position: int, token_id: int) -> int:
    key = mix_64(mix_64(seed + 0x9E3779B97F4A7C15) + position * 0xD1342543DE82EF95)
    return mix_32(mix_32(token_id ^ (key & MASK_32)) ^ (key >> 32))


def mix_64(x: int) -> int:
    x &= MASK_64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
    return x ^ (x >> 31)


def mix_32(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK_32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK_32
    return x ^ (x >> 16)
