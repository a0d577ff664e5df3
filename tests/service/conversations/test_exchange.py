"""Files of conversations: whole, in the one form, and refused where they are not what they say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.conversations import ConversationDetail, ConversationFile, ConversationMessage, FileMessage
from contracts.errors import InvalidValue
from service.conversations.exchange import encode_file, read_file, to_file

NOW_MS = 1_763_000_000_000


def detail(messages: list[ConversationMessage], **fields: Any) -> ConversationDetail:
    whole: dict[str, Any] = {
        "id": "conv_1",
        "title": "T",
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_100,
        "model": None,
        "system_prompt": None,
        "max_turns": 50,
        "generation": None,
        "num_messages": len(messages),
    }
    return ConversationDetail(**whole | fields, messages=messages)


def message(role: Any, content: str) -> ConversationMessage:
    return ConversationMessage(id="msg_1", role=role, content=content, created_at=1_700_000_050)


def imported_turns(*roles: str) -> list[int]:
    messages = [FileMessage(role=msgspec.convert(role, Any), content=role) for role in roles]
    return [one.turn for one in read_file(ConversationFile(messages=messages), NOW_MS).messages]


def test_file_has_the_names_of_the_form() -> None:
    file = msgspec.json.decode(encode_file(to_file(detail([message("user", "Hi")], system_prompt="S"))))
    assert list(file) == ["id", "title", "created_at", "updated_at", "max_length", "messages", "message_count"]
    assert file["messages"][1] == {
        "id": "msg_1",
        "role": "user",
        "content": "Hi",
        "timestamp": "2023-11-14T22:14:10+00:00",
    }
    assert file["message_count"] == {"system": 1, "user": 1, "assistant": 0}


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=6))
def test_text_comes_back_unchanged(texts: list[str]) -> None:
    messages = [message("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]
    file = msgspec.json.decode(encode_file(to_file(detail(messages))), type=ConversationFile)
    read = read_file(file, NOW_MS)
    assert [(one.role, one.content, one.created_ms) for one in read.messages] == [
        (one.role, one.content, one.created_at * 1000) for one in messages
    ]


@pytest.mark.parametrize(
    ("roles", "turns"),
    [
        (("user", "assistant", "user", "assistant"), [1, 1, 2, 2]),
        (("user", "user", "assistant"), [1, 2, 2]),
        (("assistant", "user", "assistant", "user"), [1, 1, 1, 2]),
        (("user", "assistant", "assistant"), [1, 1, 1]),
        ((), []),
    ],
)
def test_each_message_of_the_user_begins_a_turn(roles: tuple[str, ...], turns: list[int]) -> None:
    assert imported_turns(*roles) == turns


def test_file_with_messages_alone_is_enough() -> None:
    read = read_file(ConversationFile(messages=[FileMessage(role="user", content="Plant a tree\nnow")]), NOW_MS)
    assert (read.title, read.created_ms, read.max_turns) == ("Plant a tree now", NOW_MS, 50)


@pytest.mark.parametrize(
    ("timestamp", "unix_ms"),
    [
        ("2026-11-21T18:30:00", 1_795_285_800_000),
        ("2026-11-21T18:30:00+02:00", 1_795_278_600_000),
        ("2026-11-21T18:30:00.25Z", 1_795_285_800_250),
    ],
)
def test_date_without_an_offset_is_utc(timestamp: str, unix_ms: int) -> None:
    file = ConversationFile(created_at=timestamp, messages=[])
    assert read_file(file, NOW_MS).created_ms == unix_ms


@pytest.mark.parametrize("timestamp", ["", "soon", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-10:00", "2026-13-01"])
def test_date_that_is_none_is_refused(timestamp: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_file(ConversationFile(updated_at=timestamp, messages=[]), NOW_MS)
    assert caught.value.param == "updated_at"


@pytest.mark.parametrize(
    ("count", "is_whole"),
    [
        (2, True),
        (3, False),
        ({"user": 2}, True),
        ({"user": 2, "system": 0}, True),
        ({"user": 1}, False),
        ({"u": 2}, False),
    ],
)
def test_count_that_does_not_fit_is_refused(count: Any, is_whole: bool) -> None:
    file = ConversationFile(messages=[FileMessage(role="user", content="a")] * 2, message_count=count)
    try:
        found = len(read_file(file, NOW_MS).messages) == 2
    except InvalidValue as error:
        found = error.param != "message_count"
    assert found == is_whole
