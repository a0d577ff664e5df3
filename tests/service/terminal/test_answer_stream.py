"""A question becomes one request, its events become text and figures, and leaving early ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from time import monotonic, sleep

import msgspec
import pytest

from service.terminal.answer_stream import Answer as ReadAnswer
from service.terminal.answer_stream import Question, QueueWatch, read_answer
from service.terminal.api_client import ApiClient
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api
from tests.service.terminal.test_figures import explanation
from tests.service.terminal.test_session import CHAT, stream

SAID = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
QUESTION = Question(model="pico", messages=SAID, options={"top_k": 3})
COMMON = {"model": "pico", "stream": True, "stream_options": {"include_usage": True}, "top_k": 3}


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with scripted_api() as running:
        yield running


@pytest.mark.parametrize(
    ("changes", "path", "body"),
    [
        ({}, "/v1/chat/completions", {"messages": SAID}),
        ({"is_base": True}, "/v1/completions", {"prompt": "c"}),
        (
            {"conversation": "conv_1", "messages": SAID[-1:]},
            "/v1/chat/completions",
            {"messages": SAID[-1:], "conversation": "conv_1"},
        ),
    ],
)
def test_question_is_one_request(changes: dict[str, object], path: str, body: dict[str, object]) -> None:
    question = msgspec.structs.replace(QUESTION, **changes)
    assert (question.path, question.body) == (path, COMMON | body)


def test_pieces_and_figures_are_read(api: ScriptedApi) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    last = {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 4}}, "trace_id": "t1"}
    api.answers[CHAT] = stream("ä", "b", ending=b"data: " + msgspec.json.encode(last) + b"\n\ndata: [DONE]\n\n")
    answer = ReadAnswer()
    with ApiClient(api.url) as client:
        assert list(read_answer(client, QUESTION, answer)) == ["ä", "b"]
    assert (answer.text, answer.model, answer.finish_reason, answer.trace_id) == ("äb", "pico", "stop", "t1")
    assert (answer.num_tokens, answer.usage and answer.usage.prompt_tokens_details.cached_tokens) == (2, 4)
    assert api.asked[0].headers["x-request-id"] == answer.request_id


def test_leaving_early_ends_the_request(api: ScriptedApi) -> None:
    chunk = msgspec.json.encode({"choices": [{"delta": {"content": "a"}}]})
    api.answers[CHAT] = Answer(body=b"data: " + chunk + b"\n\n", is_held=True)
    answer = ReadAnswer()
    with ApiClient(api.url) as client, closing(read_answer(client, QUESTION, answer)) as pieces:
        assert next(pieces) == "a"
    assert api.left.wait(5.0)
    assert answer.text == "a"


def test_place_in_the_queue_is_asked_for(api: ScriptedApi) -> None:
    told = msgspec.structs.replace(explanation(), queue_position=3)
    api.answers["GET /v1/requests/chat-1"] = Answer(body=msgspec.json.encode(told))
    with ApiClient(api.url) as client, QueueWatch(client, "chat-1") as watch:
        deadline_s = monotonic() + 5.0
        while watch.num_ahead is None and monotonic() < deadline_s:
            sleep(0.01)
        assert watch.num_ahead == 3
