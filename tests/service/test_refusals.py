"""Every field of OpenAI's requests is honoured or refused by name, and the tables that say so are complete."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from contracts.errors import InvalidRequest, InvalidValue, MissingParameter, UnsupportedParameter
from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.completions import CompletionRequest
from service.field_rules import CHAT_RULES, COMPLETION_RULES, Treatment
from service.refusals import refuse_unsupported, unknown_field_error, unknown_fields

OPENAI_CHAT_FIELDS = [
    "messages",
    "model",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
]
OPENAI_COMPLETION_FIELDS = [
    "model",
    "prompt",
    "best_of",
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "suffix",
    "temperature",
    "top_p",
    "user",
]
VENDOR_FIELDS = [
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "priority",
    "preset",
]


def chat(**fields: Any) -> ChatCompletionRequest:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return msgspec.convert(body, ChatCompletionRequest)


def completion(**fields: Any) -> CompletionRequest:
    return msgspec.convert({"prompt": "hi", **fields}, CompletionRequest)


def refused(body: ChatCompletionRequest | CompletionRequest, kind: type[InvalidRequest]) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_unsupported(body)
    assert type(caught.value) is kind
    return caught.value.param


def test_chat_table_names_exactly_the_fields_of_the_struct() -> None:
    assert set(CHAT_RULES) == set(ChatCompletionRequest.__struct_fields__)


def test_completion_table_names_exactly_the_fields_of_the_struct() -> None:
    assert set(COMPLETION_RULES) == set(CompletionRequest.__struct_fields__)


def test_every_documented_chat_field_has_a_rule() -> None:
    assert set(CHAT_RULES) == {*OPENAI_CHAT_FIELDS, *VENDOR_FIELDS, "conversation"}


def test_every_documented_completion_field_has_a_rule() -> None:
    assert set(COMPLETION_RULES) == {*OPENAI_COMPLETION_FIELDS, *VENDOR_FIELDS, "metadata", "prompt_logprobs"}


REFUSED_CHAT = [name for name, rule in CHAT_RULES.items() if rule.treatment is Treatment.REFUSED]
REFUSED_COMPLETION = [name for name, rule in COMPLETION_RULES.items() if rule.treatment is Treatment.REFUSED]
ALLOWED = [(name, value) for name, rule in CHAT_RULES.items() for value in (*rule.allowed, None)]


@pytest.mark.parametrize("name", REFUSED_CHAT)
@pytest.mark.parametrize("value", [{}, [], "x", False, 0])
def test_refused_chat_field_is_named(name: str, value: object) -> None:
    assert refused(chat(**{name: value}), UnsupportedParameter) == name


@pytest.mark.parametrize("name", REFUSED_COMPLETION)
@pytest.mark.parametrize("value", ["", 0, False])
def test_refused_completion_field_is_named(name: str, value: object) -> None:
    assert refused(completion(**{name: value}), UnsupportedParameter) == name


@pytest.mark.parametrize(("name", "value"), [pair for pair in ALLOWED if pair[0] != "messages"])
def test_allowed_values_and_null_pass(name: str, value: object) -> None:
    refuse_unsupported(chat(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", {"type": "json_object"}),
        ("response_format", "text"),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("modalities", ["text", "audio"]),
        ("modalities", []),
        ("store", True),
        ("service_tier", "flex"),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("prompt_cache_retention", "24h"),
    ],
)
def test_other_values_of_a_partly_served_field_are_refused(name: str, value: object) -> None:
    assert refused(chat(**{name: value}), UnsupportedParameter) == name


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "c"}, "role"),
        ({"role": "function", "content": "x", "name": "f"}, "role"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "tool_calls"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f"}}, "function_call"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}, "content[1].type"),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}],
            },
            "content[0].prompt_cache_breakpoint",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "image_url": {"url": "x"}}]},
            "content[0].image_url",
        ),
        ({"role": "user", "content": [{"type": "text", "text": "x", "file": {}}]}, "content[0].file"),
    ],
)
def test_unserved_piece_of_a_message_is_named_by_its_path(message: dict[str, object], path: str) -> None:
    body = chat(messages=[{"role": "user", "content": "hi"}, message])
    assert refused(body, UnsupportedParameter) == f"messages[1].{path}"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "assistant"}, "content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "content"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0].text"),
    ],
)
def test_missing_text_of_a_message_is_named_by_its_path(message: dict[str, object], path: str) -> None:
    assert refused(chat(messages=[message]), MissingParameter) == f"messages[0].{path}"


def test_content_without_parts_is_refused() -> None:
    assert refused(chat(messages=[{"role": "user", "content": []}]), InvalidValue) == "messages[0].content"


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"top_logprobs": 2}, InvalidValue, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, InvalidValue, "top_logprobs"),
        ({"stream_options": {}}, InvalidValue, "stream_options"),
        ({"stream": False, "stream_options": {"include_usage": True}}, InvalidValue, "stream_options"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            UnsupportedParameter,
            "stream_options.include_obfuscation",
        ),
    ],
)
def test_chat_fields_that_need_each_other_are_checked(
    fields: dict[str, object], kind: type[InvalidRequest], param: str
) -> None:
    assert refused(chat(**fields), kind) == param


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"best_of": 1, "n": 2}, InvalidValue, "best_of"),
        ({"best_of": 2}, UnsupportedParameter, "best_of"),
        ({"echo": True, "logprobs": 0}, UnsupportedParameter, "echo"),
    ],
)
def test_completion_fields_that_need_each_other_are_checked(
    fields: dict[str, object], kind: type[InvalidRequest], param: str
) -> None:
    assert refused(completion(**fields), kind) == param


@pytest.mark.parametrize(
    "fields",
    [
        {"best_of": 3, "n": 3},
        {"echo": True},
        {"echo": False, "logprobs": 5},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stop": ["a"], "seed": -1, "top_k": -1, "user": "u", "metadata": {"a": "b"}},
    ],
)
def test_served_completion_fields_pass(fields: dict[str, object]) -> None:
    refuse_unsupported(completion(**fields))


def test_long_refused_value_is_clipped_in_the_message() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        refuse_unsupported(chat(response_format={"type": "x" * 10_000}))
    assert len(caught.value.message) < 300


def test_unknown_fields_are_found_but_not_null_ones() -> None:
    body = b'{"messages": [], "temprature": 1, "kv_transfer_params": {"a": 1}, "foo": null, "n": 1}'
    assert unknown_fields(body, ChatCompletionRequest) == ["temprature", "kv_transfer_params"]


def test_unknown_names_are_found_among_keys() -> None:
    assert unknown_fields(["prompt", "cache_salt"], CompletionRequest) == ["cache_salt"]


@pytest.mark.parametrize("body", [b"[]", b"{", b"3", b'{"a": NaN}'])
def test_body_that_is_no_object_has_no_unknown_fields(body: bytes) -> None:
    assert unknown_fields(body, ChatCompletionRequest) == []


def test_unknown_field_error_suggests_the_near_miss() -> None:
    error = unknown_field_error(["temprature", "zzz"], ChatCompletionRequest)
    assert error.param == "temprature"
    assert "did you mean 'temperature'?" in error.message
    assert "'zzz'" in error.message


def test_unknown_field_error_stays_short() -> None:
    error = unknown_field_error(["x" * 5000] * 1000, ChatCompletionRequest)
    assert len(error.message) < 700
    assert "and 992 more" in error.message
