"""Sampling fields of a request, checked against the model's vocabulary and window. Knows no text and no templates."""

from __future__ import annotations

import secrets

import msgspec

from contracts.engine import EngineInfo
from contracts.errors import ContextLengthExceeded, InvalidValue, clip
from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.completions import CompletionRequest
from contracts.sampling import SamplingParams

MAX_TOKEN_ID_DIGITS = 10
SEED_MASK = 2**63 - 1


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between chat and text completions once the prompt is tokens."""

    max_tokens: int | None
    """As asked for; None takes `default_max_tokens`, clamped to what the window leaves."""
    default_max_tokens: int | None
    """None: all that the window leaves."""
    max_tokens_param: str
    prompt_param: str
    num_logprobs: int | None
    stop_token_ids: tuple[int, ...] = ()
    """Ids that end the text beside those of the request's own field."""


def num_window_tokens(info: EngineInfo) -> int:
    """Return the most tokens of prompt and output together: the model's window, or the cache where that is smaller."""
    return min(info.max_model_len, info.num_cache_tokens)


def check_prompt_len(num_tokens: int, wanted: Wanted, info: EngineInfo, *, is_lower_bound: bool = False) -> None:
    """Raise ContextLengthExceeded where the prompt alone fills the window; a lower bound saves counting exactly."""
    window = num_window_tokens(info)
    if num_tokens >= window:
        raise ContextLengthExceeded(
            f"This model's {_window_name(info)} is {window} tokens. However, your {wanted.prompt_param} resulted in "
            f"{'at least ' if is_lower_bound else ''}{num_tokens} tokens. Please reduce the length of the "
            f"{wanted.prompt_param}.",
            param=wanted.prompt_param,
        )


def output_tokens(wanted: Wanted, num_prompt_tokens: int, info: EngineInfo) -> int:
    """Return max_tokens, or raise ContextLengthExceeded where prompt and output do not fit the window."""
    check_prompt_len(num_prompt_tokens, wanted, info)
    window = num_window_tokens(info)
    remaining = window - num_prompt_tokens
    if wanted.max_tokens is None:
        default = wanted.default_max_tokens
        return remaining if default is None else min(default, remaining)
    if wanted.max_tokens > remaining:
        raise ContextLengthExceeded(
            f"This model's {_window_name(info)} is {window} tokens. However, you requested "
            f"{num_prompt_tokens + wanted.max_tokens} tokens ({num_prompt_tokens} in the {wanted.prompt_param}, "
            f"{wanted.max_tokens} in the completion). Please reduce the length of the {wanted.prompt_param} or "
            f"completion: at most {remaining} are left.",
            param=wanted.max_tokens_param,
        )
    return wanted.max_tokens


def sampling_params(
    body: ChatCompletionRequest | CompletionRequest,
    wanted: Wanted,
    num_prompt_tokens: int,
    info: EngineInfo,
    default_seed: int | None,
) -> SamplingParams:
    """Fill in the model's defaults and check what depends on the model; no seed at all draws a random one."""
    max_tokens = output_tokens(wanted, num_prompt_tokens, info)
    min_tokens = body.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidValue(
            f"'min_tokens' is {min_tokens}, more than '{wanted.max_tokens_param}', which is {max_tokens}.",
            param="min_tokens",
        )
    defaults = info.sampling_defaults
    seed = body.seed if body.seed is not None else default_seed
    return SamplingParams(
        repetition_penalty=_or(body.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        logit_bias=logit_bias_pairs(body.logit_bias, info.vocab_size),
        temperature=_or(body.temperature, defaults.temperature),
        top_k=defaults.top_k if body.top_k is None else max(body.top_k, 0),
        top_p=_or(body.top_p, defaults.top_p),
        min_p=_or(body.min_p, defaults.min_p),
        seed=secrets.randbits(63) if seed is None else seed & SEED_MASK,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(body.ignore_eos),
        stop_token_ids=stop_ids(body.stop_token_ids, wanted.stop_token_ids, info.vocab_size),
        num_logprobs=wanted.num_logprobs,
    )


def logit_bias_pairs(logit_bias: dict[str, float] | None, vocab_size: int) -> tuple[tuple[int, float], ...]:
    """Read the keys as token ids; each must be a decimal number below vocab_size."""
    pairs = []
    for key, bias in (logit_bias or {}).items():
        is_number = key.isascii() and key.isdigit() and len(key) <= MAX_TOKEN_ID_DIGITS
        if not is_number or str(int(key)) != key or int(key) >= vocab_size:
            raise InvalidValue(
                f"'logit_bias' has the key '{clip(key, 40)}', which is no token id: use decimal numbers "
                f"from 0 to {vocab_size - 1}.",
                param="logit_bias",
            )
        pairs.append((int(key), bias))
    return tuple(pairs)


def stop_ids(token_ids: list[int] | None, more_ids: tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    """Return the distinct stop token ids; each that a caller gives must be below vocab_size."""
    for index, token_id in enumerate(token_ids or []):
        if token_id >= vocab_size:
            raise InvalidValue(
                f"'stop_token_ids[{index}]' is {token_id}, but token ids go from 0 to {vocab_size - 1}.",
                param=f"stop_token_ids[{index}]",
            )
    return tuple(dict.fromkeys([*(token_ids or []), *more_ids]))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _window_name(info: EngineInfo) -> str:
    return "KV cache" if info.num_cache_tokens < info.max_model_len else "maximum context length"
