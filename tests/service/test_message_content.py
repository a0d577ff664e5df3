"""Texts reach spans only where that is switched on, in the form that Jaeger's view reads, and within bounds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from contracts.openai.chat import Message
from contracts.settings import ServerSettings
from service.detokenizer import TextPiece
from service.message_content import CUT, MAX_CHARS, MessageContent, is_wanted, of_chat, of_completion

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
ON = ServerSettings(trace_content=True)


def piece(text: str, finish_reason: str | None = None) -> TextPiece:
    return TextPiece(text=text, logprobs=[], finish_reason=finish_reason)


def read(attribute: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads(attribute)
    return messages


@pytest.mark.parametrize(
    ("is_set", "variable", "wanted"),
    [(False, None, False), (True, None, True), (False, "true", True), (False, "SPAN_ONLY", True), (False, "no", False)],
)
def test_texts_are_kept_only_where_asked_for(
    monkeypatch: pytest.MonkeyPatch, is_set: bool, variable: str | None, wanted: bool
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    settings = ServerSettings(trace_content=is_set)
    assert is_wanted(settings) is wanted
    assert (of_completion(settings, "text") is not None) is wanted


def test_chat_is_told_with_roles_parts_and_finish_reasons() -> None:
    asked = msgspec.convert(
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        list[Message],
    )
    content = of_chat(ON, asked)
    assert content is not None
    content.add(1, piece("B", "length"))
    content.add(0, piece("Hel"))
    content.add(0, piece("lo", "stop"))
    told = content.attributes()
    assert read(told["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
    ]
    assert read(told["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "stop"},
        {"role": "assistant", "parts": [{"type": "text", "content": "B"}], "finish_reason": "length"},
    ]


@pytest.mark.parametrize(("prompt", "texts"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], []), ([[1], [2]], [])])
def test_token_ids_are_no_text(prompt: Any, texts: list[str]) -> None:
    content = of_completion(ON, prompt)
    assert content is not None
    told = read(content.attributes()["gen_ai.input.messages"])
    assert [message["parts"][0]["content"] for message in told] == texts


def test_newest_messages_stay_when_there_are_too_many() -> None:
    content = MessageContent([("user", "old" * MAX_CHARS), ("user", "x" * (MAX_CHARS - 5)), ("user", "newest")])
    told = [message["parts"][0]["content"] for message in read(content.attributes()["gen_ai.input.messages"])]
    assert told == ["x" * (MAX_CHARS - 6) + CUT, "newest"]


def test_long_reply_is_cut() -> None:
    content = MessageContent([])
    content.add(0, piece("a" * (MAX_CHARS - 1)))
    content.add(0, piece("bcd"))
    content.add(0, piece("e", "stop"))
    (reply,) = read(content.attributes()["gen_ai.output.messages"])
    assert reply["parts"][0]["content"] == "a" * (MAX_CHARS - 1) + "b" + CUT
    assert reply["finish_reason"] == "stop"
