"""Event streams of older services survive any text; forms are read or refused, never guessed."""

from __future__ import annotations

import httpx
import pytest
from httpx_sse import EventSource

from contracts.compat.gemma_stream import SubmitRequest
from contracts.compat.picollm import StreamedChatRequest
from contracts.errors import EngineError, InvalidRequest
from contracts.openai.chat import UserMessage
from service.compat import picollm
from service.compat.decoding import MULTIPART, URL_ENCODED, parse_form
from service.compat.forms import NAMED_ERRORS, TextForm, TokenForm, text_event
from service.compat.gemma_stream import FRAMING, to_chat
from service.detokenizer import TextPiece
from service.http_errors import SchemaError


def parsed(stream: bytes) -> list[tuple[str, str]]:
    """(name, data) of each event, as another's parser sees them."""
    reply = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return [(event.event, event.data) for event in EventSource(reply).iter_sse()]


@pytest.mark.parametrize("text", ["a", " a ", "", "a\nb", "\n", "a\n\nb\n", "data: x", ": comment", "é\u2028", "a\rb"])
def test_text_of_several_lines_stays_one_event(text: str) -> None:
    assert parsed(text_event(text)) == [("message", text.replace("\r", "\n"))]


def test_pieces_without_text_are_no_events() -> None:
    out: list[bytes] = []
    for form in (TextForm(), TokenForm()):
        form.add_events(out, 0, TextPiece(finish_reason="stop"))
    assert out == []


def test_token_events() -> None:
    out: list[bytes] = []
    TokenForm().add_events(out, 0, TextPiece(text="a\n"))
    assert parsed(b"".join(out)) == [("message", '{"token":"a\\n"}')]


def test_failed_stream_is_told_from_one_that_ended() -> None:
    error = EngineError("no")
    assert [name for name, _ in parsed(FRAMING.done)] == ["end"]
    assert [name for name, _ in parsed(FRAMING.error(error))] == ["error", "end"]
    assert parsed(NAMED_ERRORS.error(error))[0][0] == "error"
    assert parsed(FRAMING.done) != parsed(FRAMING.error(error))[1:]


@pytest.mark.parametrize(("context", "text"), [(None, "Q"), ("", "Q"), ("C", "Context: C\n\nQuestion: Q")])
def test_context_stands_before_the_question(context: str | None, text: str) -> None:
    chat = to_chat(SubmitRequest(prompt="Q", context=context, client_id="a"))
    assert chat.messages == [UserMessage(content=text)]


def streamed(**fields: object) -> StreamedChatRequest:
    return StreamedChatRequest(messages=[UserMessage(content="a")], **fields)  # type: ignore[arg-type]


def test_top_p_of_zero_is_off_and_streams_are_the_default() -> None:
    chat = picollm.to_chat(streamed(top_p=0))
    assert (chat.top_p, chat.stream) == (1.0, True)
    assert picollm.to_chat(streamed(stream=False)).stream is False


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 4),
        ({"max_new_tokens": 5}, 5),
        ({}, None),
    ],
)
def test_names_of_the_limit(fields: dict[str, int], limit: int | None) -> None:
    chat = picollm.to_chat(streamed(**fields))
    assert (chat.max_tokens, chat.max_completion_tokens) == (None, limit)


def test_limits_that_differ_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="max_new_tokens"):
        picollm.to_chat(streamed(max_new_tokens=5, max_tokens=6))


def multipart(*parts: str) -> bytes:
    return "".join(f"--B\r\nContent-Disposition: form-data; {part}\r\n" for part in parts).encode() + b"--B--\r\n"


MULTIPART_B = f"{MULTIPART}; boundary=B"


@pytest.mark.parametrize(
    ("content_type", "body", "fields"),
    [
        (URL_ENCODED, b"prompt=a+b%21&message=%C3%A9", {"prompt": "a b!", "message": "é"}),
        (URL_ENCODED, b"", {}),
        (URL_ENCODED, b"prompt=", {"prompt": ""}),
        (MULTIPART_B, multipart('name="prompt"\r\n\r\na\nb'), {"prompt": "a\nb"}),
        (MULTIPART_B, b"--B--\r\n", {}),
    ],
)
def test_forms_are_read(content_type: str, body: bytes, fields: dict[str, str]) -> None:
    assert parse_form(body, content_type) == fields


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URL_ENCODED, b"prompt=%FF"),
        (URL_ENCODED, b"\xff"),
        (URL_ENCODED, b"&".join(b"a%d=1" % number for number in range(100))),
        (MULTIPART, b"--B--\r\n"),
        (MULTIPART_B, b"not a form"),
        (MULTIPART_B, multipart('name="prompt"\r\n\r\na')[:-8]),
        (MULTIPART_B, multipart('name="prompt"; filename="a.txt"\r\n\r\na')),
        (MULTIPART_B, multipart(*(f'name="{number}"\r\n\r\na' for number in range(100)))),
        (MULTIPART_B, multipart('name="prompt"\r\n\r\n').replace(b"\r\n\r\n", b"\r\n\r\n\xff")),
    ],
)
def test_nonsense_is_no_form(content_type: str, body: bytes) -> None:
    with pytest.raises(SchemaError, match="form cannot be read"):
        parse_form(body, content_type)
