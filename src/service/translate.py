"""From wire structs to what the engine is asked: checked once, here, into another type. Knows no HTTP, no engine.

Plain synchronous functions: templating and tokenising cost CPU time, so handlers call them in a thread.
"""

from __future__ import annotations

import secrets

import msgspec

from contracts.engine import EngineInfo
from contracts.errors import ContextLengthExceeded, InvalidRequest, InvalidValue, ModelNotFound, clip
from contracts.generation import GenerationRequest
from contracts.openai.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    Content,
    DeveloperMessage,
    Message,
    SystemMessage,
)
from contracts.openai.completions import CompletionRequest
from contracts.sampling import SamplingParams
from service.chat_template import ChatTemplate
from service.prompts import encode_prompts
from service.refusals import refuse_unsupported
from service.text_checks import check_text
from service.tokenizer import TextTokenizer

MAX_SEQUENCES_PER_CALL = 64
MAX_TOKEN_ID_DIGITS = 10
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens in /v1/completions."""


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the service sees it; made once when the server starts."""

    info: EngineInfo
    tokenizer: TextTokenizer
    template: ChatTemplate | None
    """None for a base model, which serves only /v1/completions."""
    names: tuple[str, ...]
    """Names that callers may use, the first being the one that replies carry."""

    @property
    def num_window_tokens(self) -> int:
        """Most tokens of prompt and output together."""
        return min(self.info.max_model_len, self.info.num_cache_tokens)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator sets for every request."""

    request_timeout_s: float | None = None
    default_seed: int | None = None
    """Seed of requests that give none; None draws one for each."""


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to the engine, and what the service needs to turn its tokens into an answer."""

    generation: GenerationRequest
    stop_strings: tuple[str, ...] = ()
    echo_text: str | None = None
    """The prompt, to be sent before the first text of each sample."""
    wants_logprobs: bool = False
    num_top_logprobs: int = 0
    num_prompt_tokens: int
    continues_prompt: bool = False
    """The answer goes on in the middle of a text, so a space before its first word is kept."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between chat and text completions once the prompt is tokens."""

    max_tokens: int | None
    """As asked for; None takes `default_max_tokens`, clamped to what the window leaves."""
    default_max_tokens: int | None
    """None: all that the window leaves."""
    max_tokens_param: str
    prompt_param: str
    num_logprobs: int | None


def translate_chat(body: ChatCompletionRequest, model: ServedModel, request_id: str, limits: Limits) -> TextRequest:
    """Check a chat request and make the engine's request of it; raises RequestErrors that name the field."""
    refuse_unsupported(body)
    check_model(body.model, model)
    if model.template is None:
        raise InvalidRequest(
            f"The model '{model.names[0]}' is a base model without a chat template. Use /v1/completions.",
            param="messages",
        )
    parts = model.template.render_parts(template_messages(body.messages))
    token_ids = model.tokenizer.encode_trusted(parts)
    if not token_ids:
        raise InvalidValue("'messages' make an empty prompt. Send some text.", param="messages")
    wanted = Wanted(
        max_tokens=chat_max_tokens(body),
        default_max_tokens=None,
        max_tokens_param="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
        prompt_param="messages",
        num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    sampling = sampling_params(body, wanted, len(token_ids), model, limits)
    return TextRequest(
        generation=generation_request(body, token_ids, sampling, request_id, limits),
        stop_strings=stop_strings(body.stop),
        wants_logprobs=wanted.num_logprobs is not None,
        num_top_logprobs=wanted.num_logprobs or 0,
        num_prompt_tokens=len(token_ids),
    )


def translate_completion(
    body: CompletionRequest, model: ServedModel, request_id: str, limits: Limits
) -> list[TextRequest]:
    """Check a completion request and make one engine request per prompt; choice index = prompt * n + sample."""
    refuse_unsupported(body)
    check_model(body.model, model)
    prompts = encode_prompts(body.prompt, model.tokenizer, model.info.vocab_size, wants_text=bool(body.echo))
    num_samples = body.n or 1
    if len(prompts) * num_samples > MAX_SEQUENCES_PER_CALL:
        raise InvalidValue(
            f"{len(prompts)} prompts times n = {num_samples} is more than {MAX_SEQUENCES_PER_CALL} choices in one "
            "request. Send several requests.",
            param="n",
        )
    wanted = Wanted(
        max_tokens=body.max_tokens,
        default_max_tokens=DEFAULT_COMPLETION_TOKENS,
        max_tokens_param="max_tokens",
        prompt_param="prompt",
        num_logprobs=body.logprobs,
    )
    requests = []
    for index, prompt in enumerate(prompts):
        sampling = sampling_params(body, wanted, len(prompt.token_ids), model, limits)
        one_id = request_id if len(prompts) == 1 else f"{request_id}-{index}"
        requests.append(
            TextRequest(
                generation=generation_request(body, prompt.token_ids, sampling, one_id, limits),
                stop_strings=stop_strings(body.stop),
                echo_text=prompt.text,
                wants_logprobs=body.logprobs is not None,
                num_top_logprobs=body.logprobs or 0,
                num_prompt_tokens=len(prompt.token_ids),
                continues_prompt=True,
            )
        )
    return requests


def check_model(name: str | None, model: ServedModel) -> None:
    """Raise ModelNotFound unless the name is one of the served model's, or absent."""
    if name is not None and name not in model.names:
        raise ModelNotFound(
            f"The model '{clip(name)}' is not served here. Served: {', '.join(model.names)}.", param="model"
        )


def template_messages(messages: list[Message]) -> list[dict[str, str]]:
    """Return messages as the template sees them: developer is system, parts are one text, unset keys are absent."""
    rendered = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        role = str(message.__struct_config__.tag)
        content = content_text(message.content)
        seen = {"role": "system" if isinstance(message, DeveloperMessage) else role}
        if isinstance(message, AssistantMessage):
            if message.content is None:
                content = message.refusal or ""
            if message.reasoning_content is not None:
                seen["reasoning_content"] = check_text(message.reasoning_content, f"{path}.reasoning_content")
        seen["content"] = check_text(content, f"{path}.content")
        if isinstance(message, SystemMessage | DeveloperMessage) or message.__struct_config__.tag in (
            "user",
            "assistant",
        ):
            name = getattr(message, "name", None)
            if name is not None:
                seen["name"] = check_text(name, f"{path}.name")
        rendered.append(seen)
    return rendered


def content_text(content: Content | None) -> str:
    """Return the text of a message; the parts of a list follow each other unchanged."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def chat_max_tokens(body: ChatCompletionRequest) -> int | None:
    """Return the one limit that max_tokens and max_completion_tokens agree on."""
    older, newer = body.max_tokens, body.max_completion_tokens
    if older is not None and newer is not None and older != newer:
        raise InvalidValue(
            f"'max_tokens' is {older} and 'max_completion_tokens' is {newer}. Give only 'max_completion_tokens'.",
            param="max_tokens",
        )
    return older if newer is None else newer


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return the distinct stop strings in the order given."""
    strings = [stop] if isinstance(stop, str) else stop or []
    for string in strings:
        check_text(string, "stop")
    return tuple(dict.fromkeys(strings))


def output_tokens(wanted: Wanted, num_prompt_tokens: int, model: ServedModel) -> int:
    """Return max_tokens, or raise ContextLengthExceeded where prompt and output do not fit the window."""
    window = model.num_window_tokens
    what = "maximum context length" if window == model.info.max_model_len else "KV cache"
    remaining = window - num_prompt_tokens
    if remaining < 1:
        raise ContextLengthExceeded(
            f"This model's {what} is {window} tokens. However, your {wanted.prompt_param} resulted in "
            f"{num_prompt_tokens} tokens. Please reduce the length of the {wanted.prompt_param}.",
            param=wanted.prompt_param,
        )
    if wanted.max_tokens is None:
        default = wanted.default_max_tokens
        return remaining if default is None else min(default, remaining)
    if wanted.max_tokens > remaining:
        raise ContextLengthExceeded(
            f"This model's {what} is {window} tokens. However, you requested {num_prompt_tokens + wanted.max_tokens} "
            f"tokens ({num_prompt_tokens} in the {wanted.prompt_param}, {wanted.max_tokens} in the completion). "
            f"Please reduce the length of the {wanted.prompt_param} or completion: at most {remaining} are left.",
            param=wanted.max_tokens_param,
        )
    return wanted.max_tokens


def sampling_params(
    body: ChatCompletionRequest | CompletionRequest,
    wanted: Wanted,
    num_prompt_tokens: int,
    model: ServedModel,
    limits: Limits,
) -> SamplingParams:
    """Fill in OpenAI's defaults and check what depends on the model."""
    max_tokens = output_tokens(wanted, num_prompt_tokens, model)
    min_tokens = body.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidValue(
            f"'min_tokens' is {min_tokens}, more than '{wanted.max_tokens_param}', which is {max_tokens}.",
            param="min_tokens",
        )
    seed = body.seed if body.seed is not None else limits.default_seed
    return SamplingParams(
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        logit_bias=logit_bias_pairs(body.logit_bias, model.info.vocab_size),
        temperature=_or(body.temperature, 1.0),
        top_k=max(body.top_k or 0, 0),
        top_p=_or(body.top_p, 1.0),
        min_p=_or(body.min_p, 0.0),
        seed=secrets.randbits(63) if seed is None else seed & (2**63 - 1),
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(body.ignore_eos),
        stop_token_ids=stop_ids(body.stop_token_ids, model.info.vocab_size),
        num_logprobs=wanted.num_logprobs,
    )


def generation_request(
    body: ChatCompletionRequest | CompletionRequest,
    token_ids: list[int],
    sampling: SamplingParams,
    request_id: str,
    limits: Limits,
) -> GenerationRequest:
    """Put the checked pieces together."""
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=token_ids,
        sampling=sampling,
        num_samples=body.n or 1,
        priority=body.priority or 0,
        timeout_s=limits.request_timeout_s,
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


def stop_ids(token_ids: list[int] | None, vocab_size: int) -> tuple[int, ...]:
    """Return the distinct stop token ids; each must be below vocab_size."""
    for index, token_id in enumerate(token_ids or []):
        if token_id >= vocab_size:
            raise InvalidValue(
                f"'stop_token_ids[{index}]' is {token_id}, but token ids go from 0 to {vocab_size - 1}.",
                param=f"stop_token_ids[{index}]",
            )
    return tuple(dict.fromkeys(token_ids or []))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
