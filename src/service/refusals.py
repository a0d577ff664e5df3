"""Refuses by name what `field_rules` does not allow, what fields forbid each other, and fields that nobody knows.

Knows the wire structs, but no model and no tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec

from contracts.errors import (
    InvalidValue,
    MissingParameter,
    UnknownParameter,
    UnsupportedParameter,
    clip,
)
from contracts.openai.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    Content,
    FunctionMessage,
    Message,
    ToolMessage,
)
from contracts.openai.common import StreamOptions
from contracts.openai.completions import CompletionRequest
from service.field_rules import CHAT_RULES, COMPLETION_RULES, FieldRule, Treatment

MAX_QUOTED_LEN = 60
MAX_UNKNOWN_NAMES = 8
OTHER_PAYLOADS = ("image_url", "video_url", "audio_url", "input_audio", "file", "refusal")
"""Fields of content parts that are not text."""


def refuse_unsupported(body: ChatCompletionRequest | CompletionRequest) -> None:
    """Raise UnsupportedParameter or InvalidValue for the first field, by name, that cannot be honoured."""
    is_chat = isinstance(body, ChatCompletionRequest)
    for name, rule in (CHAT_RULES if is_chat else COMPLETION_RULES).items():
        if rule.treatment is Treatment.SOME_VALUES or rule.treatment is Treatment.REFUSED:
            _refuse_field(name, getattr(body, name), rule)
    _check_stream_options(body.stream_options, bool(body.stream))
    if isinstance(body, ChatCompletionRequest):
        _check_chat(body)
    else:
        _check_completion(body)


def unknown_fields(body: bytes | Iterable[str], struct_type: type[msgspec.Struct]) -> list[str]:
    """Return the names in a JSON object that the struct lacks; from bytes, a null value does not count.

    A body that is no object has none: decoding it into the struct says what is wrong.
    """
    known = {field.encode_name for field in msgspec.structs.fields(struct_type)}
    if not isinstance(body, bytes):
        return [name for name in body if name not in known]
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return []
    return [name for name, value in found.items() if name not in known and bytes(value) != b"null"]


def unknown_field_error(names: list[str], struct_type: type[msgspec.Struct]) -> UnknownParameter:
    """Make the error for unknown fields: `param` is the first of them, and near misses get a suggestion."""
    known = [field.encode_name for field in msgspec.structs.fields(struct_type)]
    sentences = []
    for name in names[:MAX_UNKNOWN_NAMES]:
        near = difflib.get_close_matches(name[:MAX_QUOTED_LEN], known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        sentences.append(f"'{clip(name, MAX_QUOTED_LEN)}'{hint}")
    more = f" and {len(names) - MAX_UNKNOWN_NAMES} more" if len(names) > MAX_UNKNOWN_NAMES else ""
    return UnknownParameter(
        f"Unknown parameter: {', '.join(sentences)}{more}. Remove it, or set it to null.",
        param=clip(names[0], MAX_QUOTED_LEN),
    )


def _refuse_field(name: str, value: Any, rule: FieldRule) -> None:
    if value is None or value in rule.allowed:
        return
    if rule.treatment is Treatment.REFUSED:
        raise UnsupportedParameter(f"'{name}' is not supported by this server. Remove it.", param=name)
    allowed = " or ".join(_quote(choice) for choice in rule.allowed)
    raise UnsupportedParameter(
        f"'{name}' is {_quote(value)}, but this server only supports {allowed}. Remove '{name}' or set it so.",
        param=name,
    )


def _quote(value: Any) -> str:
    return clip(msgspec.json.encode(value).decode("utf-8", "replace"), MAX_QUOTED_LEN)


def _check_stream_options(options: StreamOptions | None, is_streaming: bool) -> None:
    if options is None:
        return
    if not is_streaming:
        raise InvalidValue("'stream_options' is only allowed together with 'stream': true.", param="stream_options")
    if options.include_obfuscation:
        raise UnsupportedParameter(
            "'stream_options.include_obfuscation' is true, but this server adds no obfuscation. Set it to false.",
            param="stream_options.include_obfuscation",
        )


def _check_chat(body: ChatCompletionRequest) -> None:
    if body.top_logprobs and not body.logprobs:
        raise InvalidValue("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    for index, message in enumerate(body.messages):
        _check_message(message, f"messages[{index}]")


def _check_message(message: Message, path: str) -> None:
    if isinstance(message, ToolMessage | FunctionMessage):
        role = "tool" if isinstance(message, ToolMessage) else "function"
        raise UnsupportedParameter(
            f"'{path}.role' is '{role}', but this server does not serve tools. "
            "Use system, developer, user or assistant.",
            param=f"{path}.role",
        )
    if isinstance(message, AssistantMessage):
        for name in ("tool_calls", "function_call", "audio"):
            if getattr(message, name) not in (None, []):
                raise UnsupportedParameter(
                    f"'{path}.{name}' is not supported by this server. Remove it.", param=f"{path}.{name}"
                )
        if message.content is None and message.refusal is None:
            raise MissingParameter(
                f"'{path}.content' is missing: an assistant message needs text.", param=f"{path}.content"
            )
    if message.content is not None:
        _check_content(message.content, f"{path}.content")


def _check_content(content: Content, path: str) -> None:
    if isinstance(content, str):
        return
    if not content:
        raise InvalidValue(f"'{path}' is an empty list. Give a text or at least one text part.", param=path)
    for index, part in enumerate(content):
        if part.type != "text":
            raise UnsupportedParameter(
                f"'{path}[{index}].type' is '{clip(part.type, MAX_QUOTED_LEN)}', but this server only reads 'text'.",
                param=f"{path}[{index}].type",
            )
        if part.prompt_cache_breakpoint is not None:
            raise UnsupportedParameter(
                f"'{path}[{index}].prompt_cache_breakpoint' is not supported: prefixes are cached anyway. Remove it.",
                param=f"{path}[{index}].prompt_cache_breakpoint",
            )
        for name in OTHER_PAYLOADS:
            if getattr(part, name) is not None:
                raise UnsupportedParameter(
                    f"'{path}[{index}].{name}' has no place in a part of type 'text'. Remove it.",
                    param=f"{path}[{index}].{name}",
                )
        if part.text is None:
            raise MissingParameter(f"'{path}[{index}].text' is missing.", param=f"{path}[{index}].text")


def _check_completion(body: CompletionRequest) -> None:
    num_samples = body.n or 1
    if body.best_of is not None and body.best_of < num_samples:
        raise InvalidValue(f"'best_of' is {body.best_of}, less than 'n', which is {num_samples}.", param="best_of")
    if body.best_of is not None and body.best_of > num_samples:
        raise UnsupportedParameter(
            f"'best_of' is {body.best_of}, but this server returns all it samples: leave it out or give 'n' "
            f"({num_samples}).",
            param="best_of",
        )
    if body.echo and body.logprobs is not None:
        raise UnsupportedParameter(
            "'echo' with 'logprobs' is not supported: this server computes no log probabilities of the prompt. "
            "Remove one of them.",
            param="echo",
        )
