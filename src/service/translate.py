"""From wire structs to what the engine is asked: checked once, here, into another type. Knows no HTTP, no engine.

Plain synchronous functions: templating and tokenising cost CPU time, so handlers call them in a thread.
"""

from __future__ import annotations

import msgspec

from contracts.engine import EngineInfo
from contracts.errors import InvalidRequest, InvalidValue, ModelNotFound, clip
from contracts.generation import GenerationRequest, Tenant
from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.completions import MAX_PROMPTS, CompletionRequest, Prompt
from contracts.sampling import SamplingParams
from service.chat_messages import template_messages
from service.chat_template import ChatTemplate
from service.option_defaults import preset_max_tokens, with_preset
from service.prompts import encode_prompts
from service.refusals import refuse_unsupported
from service.sampling_options import Wanted, check_prompt_len, num_window_tokens, sampling_params
from service.text_checks import check_text
from service.tokenizer import TextTokenizer

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
    default_max_tokens: int | None = None
    """Most tokens of an answer whose request sets no limit; None: what the window leaves, or 16 for a completion."""

    @property
    def num_window_tokens(self) -> int:
        """Most tokens of prompt and output together."""
        return num_window_tokens(self.info)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a request from outside its body: the operator's settings, narrowed by the key and the headers."""

    request_timeout_s: float | None = None
    tenant: Tenant = Tenant()
    cache_salt: str = ""
    """Prefix blocks are shared under equal salts only; never from the caller."""
    client_request_id: str = ""
    """x-request-id of the HTTP request."""
    traceparent: str = ""
    """W3C trace context of its span."""
    is_detached: bool = False
    """The request goes on when its client is gone."""
    default_seed: int | None = None
    """Seed of requests that give none; None draws one for each."""
    default_max_tokens: int | None = None
    """Of the route: most tokens of an answer where neither request nor model says."""


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
    strips_space: bool = False
    """The prompt ends in the middle of a line, so a space before the first word of the answer is dropped."""


def translate_chat(body: ChatCompletionRequest, model: ServedModel, request_id: str, limits: Limits) -> TextRequest:
    """Check a chat request and make the engine's request of it; raises RequestErrors that name the field."""
    refuse_unsupported(body)
    body = with_preset(body)
    check_model(body.model, model)
    if model.template is None:
        raise InvalidRequest(
            f"The model '{model.names[0]}' is a base model without a chat template. Use /v1/completions.",
            param="messages",
        )
    strings = tuple(dict.fromkeys([*stop_strings(body.stop), *model.template.stops]))
    wanted = Wanted(
        max_tokens=chat_max_tokens(body),
        default_max_tokens=preset_max_tokens(body) or model.default_max_tokens or limits.default_max_tokens,
        max_tokens_param="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
        prompt_param="messages",
        num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        stop_token_ids=control_stop_ids(strings, model.tokenizer),
    )
    parts = model.template.render_parts(template_messages(body.messages))
    least = sum(model.tokenizer.min_num_tokens(part.text) for part in parts)
    check_prompt_len(least, wanted, model.info, is_lower_bound=True)
    token_ids = model.tokenizer.encode_trusted(parts)
    if not token_ids:
        raise InvalidValue("'messages' make an empty prompt. Send some text.", param="messages")
    sampling = sampling_params(body, wanted, len(token_ids), model.info, limits.default_seed)
    return TextRequest(
        generation=generation_request(body, token_ids, sampling, request_id, limits),
        stop_strings=strings,
        wants_logprobs=wanted.num_logprobs is not None,
        num_top_logprobs=wanted.num_logprobs or 0,
        num_prompt_tokens=len(token_ids),
        strips_space=model.template.strips_space,
    )


def translate_completion(
    body: CompletionRequest, model: ServedModel, request_id: str, limits: Limits
) -> list[TextRequest]:
    """Check a completion request and make one engine request per prompt; choice index = prompt * n + sample."""
    refuse_unsupported(body)
    body = with_preset(body)
    check_model(body.model, model)
    strings = stop_strings(body.stop)
    wanted = Wanted(
        max_tokens=body.max_tokens,
        default_max_tokens=preset_max_tokens(body)
        or model.default_max_tokens
        or limits.default_max_tokens
        or DEFAULT_COMPLETION_TOKENS,
        max_tokens_param="max_tokens",
        prompt_param="prompt",
        num_logprobs=body.logprobs,
        stop_token_ids=control_stop_ids(strings, model.tokenizer),
    )
    num_samples = body.n or 1
    check_fan_out(body.prompt, num_samples)
    check_detached(body, limits)
    check_prompt_len(longest_prompt(body.prompt, model.tokenizer), wanted, model.info, is_lower_bound=True)
    prompts = encode_prompts(body.prompt, model.tokenizer, model.info.vocab_size, wants_text=bool(body.echo))
    requests = []
    for index, prompt in enumerate(prompts):
        sampling = sampling_params(body, wanted, len(prompt.token_ids), model.info, limits.default_seed)
        one_id = request_id if len(prompts) == 1 else f"{request_id}-{index}"
        requests.append(
            TextRequest(
                generation=generation_request(body, prompt.token_ids, sampling, one_id, limits),
                stop_strings=strings,
                echo_text=prompt.text,
                wants_logprobs=body.logprobs is not None,
                num_top_logprobs=body.logprobs or 0,
                num_prompt_tokens=len(prompt.token_ids),
                continues_prompt=True,
            )
        )
    return requests


def check_detached(body: CompletionRequest, limits: Limits) -> None:
    """Raise InvalidValue for a request that is to survive its client but could not be resumed."""
    if limits.is_detached and count_prompts(body.prompt) > 1:
        raise InvalidValue("A request that is kept without its client has one 'prompt'. Send several.", param="prompt")
    if limits.is_detached and body.echo:
        raise InvalidValue(
            "A request that is kept without its client cannot 'echo' its prompt, as that is not kept. Leave it out.",
            param="echo",
        )


def count_prompts(prompt: Prompt) -> int:
    """Return the number of prompts in the field; a list of ids is one."""
    return len(prompt) if isinstance(prompt, list) and not all(type(item) is int for item in prompt) else 1


def check_fan_out(prompt: Prompt, num_samples: int) -> None:
    """Raise InvalidValue where prompts times samples are too many; counted before anything is tokenised."""
    num_prompts = count_prompts(prompt)
    if num_prompts * num_samples > MAX_PROMPTS:
        raise InvalidValue(
            f"{num_prompts} prompts times n = {num_samples} is more than {MAX_PROMPTS} choices in one "
            "request. Send several requests.",
            param="prompt" if num_samples == 1 else "n",
        )


def longest_prompt(prompt: Prompt, tokenizer: TextTokenizer) -> int:
    """Return the fewest tokens that the longest text of the prompt can have; 0 for token ids."""
    texts = [prompt] if isinstance(prompt, str) else [item for item in prompt if isinstance(item, str)]
    return max(map(tokenizer.min_num_tokens, texts), default=0)


def check_model(name: str | None, model: ServedModel) -> None:
    """Raise ModelNotFound unless the name is one of the served model's, or absent."""
    if name is not None and name not in model.names:
        raise ModelNotFound(
            f"The model '{clip(name)}' is not served here. Served: {', '.join(model.names)}.", param="model"
        )


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


def control_stop_ids(strings: tuple[str, ...], tokenizer: TextTokenizer) -> tuple[int, ...]:
    """Return the ids of stop strings that are control tokens: they have no text in which they could be found."""
    ids = (tokenizer.control_id(string) for string in strings)
    return tuple(token_id for token_id in ids if token_id is not None)


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
        cache_salt=limits.cache_salt,
        tenant=limits.tenant,
        client_request_id=limits.client_request_id,
        traceparent=limits.traceparent,
        is_detached=limits.is_detached,
    )
