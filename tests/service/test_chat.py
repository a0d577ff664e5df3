"""POST /v1/chat/completions: the reply and the events that OpenAI's clients rely on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest

from contracts.generation import FinishReason, GenerationRequest
from contracts.openai.chat import ChatCompletionChunk, ChunkChoice, Delta
from contracts.openai.common import PromptTokensDetails, Usage
from service.detokenizer import TextPiece
from service.routes.chat import ChatForm
from service.routes.generation import ReplyHead
from tests.fakes import EOS, FakeEngine, say

PATH = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
STREAM = BODY | {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}


def events_of(reply: httpx.Response) -> list[Any]:
    """The JSON of every event but the last, which must be [DONE]."""
    *events, done, rest = reply.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def choices_of(events: list[Any], index: int) -> list[Any]:
    return [choice for event in events for choice in event["choices"] if choice["index"] == index]


def text_of(choices: list[Any]) -> str:
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def test_one_shot_reply_has_every_required_key(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.num_cached_tokens = 16
    reply = await client.post(PATH, json=BODY)
    body = reply.json()
    num_prompt_tokens = len(engine.requests[0].prompt_token_ids)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": "fake/model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": num_prompt_tokens,
            "completion_tokens": 7,
            "total_tokens": num_prompt_tokens + 7,
            "prompt_tokens_details": {"cached_tokens": 16},
        },
        "service_tier": "default",
        "system_fingerprint": "quire-fake-0001",
    }


async def test_stream_says_the_role_once_then_text_then_one_finish_reason(client: httpx.AsyncClient) -> None:
    reply = await client.post(PATH, json=STREAM)
    choices = choices_of(events_of(reply), 0)
    assert [choice["delta"].get("role") for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
    assert text_of(choices) == "Hello."
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert choices[-1]["delta"] == {}


async def test_stream_headers_forbid_caching_and_buffering(client: httpx.AsyncClient) -> None:
    headers = (await client.post(PATH, json=STREAM)).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"


async def test_all_chunks_share_id_created_model_and_object(client: httpx.AsyncClient) -> None:
    events = events_of(await client.post(PATH, json=STREAM))
    heads = {(event["id"], event["created"], event["model"], event["object"]) for event in events}
    assert len(heads) == 1
    assert heads.pop()[2:] == ("fake/model", "chat.completion.chunk")


async def test_choices_appear_first_in_order_and_end_once_each(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda request, sample: [*(b"abc"[sample:]), EOS]
    events = events_of(await client.post(PATH, json=STREAM | {"n": 3}))
    assert [event["choices"][0]["index"] for event in events[:3]] == [0, 1, 2]
    assert [text_of(choices_of(events, index)) for index in range(3)] == ["abc", "bc", "c"]
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
    assert sum(reason is not None for reason in reasons) == 3


async def test_usage_is_null_in_every_chunk_but_the_last(client: httpx.AsyncClient) -> None:
    *events, last = events_of(await client.post(PATH, json=USAGE))
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 7


async def test_usage_is_absent_unless_asked_for(client: httpx.AsyncClient) -> None:
    assert not any("usage" in event for event in events_of(await client.post(PATH, json=STREAM)))


async def test_one_shot_and_stream_say_the_same(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = say('é\u2028\r\n"\\\U0001f600 <b>')
    engine.tokens_per_delta = 3
    whole = (await client.post(PATH, json=BODY)).json()["choices"][0]["message"]["content"]
    pieces = text_of(choices_of(events_of(await client.post(PATH, json=STREAM)), 0))
    assert pieces == whole == 'é\u2028\r\n"\\\U0001f600 <b>'


@pytest.mark.parametrize("is_stream", [True, False])
async def test_logprobs_have_exact_bytes_and_a_floor(
    client: httpx.AsyncClient, engine: FakeEngine, is_stream: bool
) -> None:
    engine.script = say("é")
    reply = await client.post(PATH, json=BODY | {"logprobs": True, "top_logprobs": 3, "stream": is_stream})
    choices = choices_of(events_of(reply), 0) if is_stream else reply.json()["choices"]
    entries = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert [entry["bytes"] for entry in entries] == [[0xC3], [0xA9]]
    assert [entry["logprob"] for entry in entries] == [-0.25, -0.25]
    assert [top["logprob"] for top in entries[0]["top_logprobs"]] == [0.0, -0.5, -9999.0]


async def test_length_is_the_finish_reason_at_max_tokens(client: httpx.AsyncClient) -> None:
    choice = (await client.post(PATH, json=BODY | {"max_tokens": 3})).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hel", "length")


@pytest.mark.parametrize("is_stream", [True, False])
async def test_stop_string_ends_the_text_and_aborts_the_request(
    client: httpx.AsyncClient, engine: FakeEngine, is_stream: bool
) -> None:
    engine.script = say("one two three" + " four" * 500)
    reply = await client.post(PATH, json=BODY | {"stop": " th", "stream": is_stream})
    text = text_of(choices_of(events_of(reply), 0)) if is_stream else reply.json()["choices"][0]["message"]["content"]
    assert text == "one two"
    assert engine.aborted == [engine.requests[0].request_id]
    assert engine.num_generated_tokens < 30


async def test_stopped_sample_is_silent_while_the_others_go_on(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda request, sample: [*(b"a.bcdef" if sample == 0 else b"abcdef."), EOS]
    choices = (await client.post(PATH, json=BODY | {"stop": ".", "n": 2})).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["a", "abcdef"]
    assert len(engine.aborted) == 1


async def test_finished_request_is_not_aborted(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(PATH, json=BODY)
    await client.post(PATH, json=STREAM)
    assert engine.aborted == []


async def test_engine_sees_its_own_ids_never_the_callers(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for _ in range(2):
        await client.post(PATH, json=BODY, headers={"x-request-id": "same"})
    assert len({request.request_id for request in engine.requests}) == 2
    assert "same" not in {request.request_id for request in engine.requests}


async def test_long_prompt_is_translated_in_a_thread_with_the_same_result(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = _repeat_length
    content = "x" * 5000
    reply = await client.post(PATH, json={"messages": [{"role": "user", "content": content}], "model": "fake/model"})
    assert reply.status_code == 400
    reply = await client.post(PATH, json={"messages": [{"role": "user", "content": content[:3900]}], "metadata": None})
    assert reply.json()["usage"]["prompt_tokens"] == int(reply.json()["choices"][0]["message"]["content"])


def _repeat_length(request: GenerationRequest, sample: int) -> list[int]:
    return [*str(len(request.prompt_token_ids)).encode(), EOS]


class TestFailures:
    async def test_failure_before_the_reply_is_an_http_status(
        self, client: httpx.AsyncClient, engine: FakeEngine
    ) -> None:
        engine.fail_after = 0
        reply = await client.post(PATH, json=BODY)
        assert reply.status_code == 500
        assert reply.headers["x-should-retry"] == "false"
        assert reply.json()["error"]["code"] == "engine_error"
        assert "0x7f00" not in reply.text
        assert "/srv" not in reply.text

    async def test_failure_inside_a_stream_is_an_error_event_and_no_done(
        self, client: httpx.AsyncClient, engine: FakeEngine
    ) -> None:
        engine.fail_after = 2
        reply = await client.post(PATH, json=STREAM)
        *_, last, rest = reply.text.split("\n\n")
        error = json.loads(last.removeprefix("data: "))["error"]
        assert rest == ""
        assert "[DONE]" not in reply.text
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("server_error", "engine_error")
        assert "0x7f00" not in reply.text

    async def test_deadline_is_503_with_retry_after(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.fail_after, engine.failure = 1, FinishReason.DEADLINE
        reply = await client.post(PATH, json=BODY)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "deadline_exceeded"
        assert reply.headers["x-should-retry"] == "true"
        assert int(reply.headers["retry-after"]) >= 1

    async def test_request_cut_by_shutdown_can_be_retried(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.fail_after, engine.failure = 1, FinishReason.ABORT
        reply = await client.post(PATH, json=BODY)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")

    async def test_lost_engine_is_503_and_can_be_retried(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.fail_after, engine.failure = 1, FinishReason.LOST
        reply = await client.post(PATH, json=BODY)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_dead")
        assert reply.headers["x-should-retry"] == "true"
        assert int(reply.headers["retry-after"]) >= 1

    async def test_failure_of_one_sample_frees_the_others(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.fail_after = 1
        assert (await client.post(PATH, json=BODY | {"n": 3})).status_code == 500
        assert engine.stats().num_running == 0


class TestEventBytes:
    """The hand-made bytes of plain chunks equal those of the struct."""

    @pytest.mark.parametrize("has_usage", [True, False])
    @pytest.mark.parametrize("text", ["a", 'quote " and \\', "\r\n\u2028", "é\U0001f600", '"content":""', "</script>"])
    def test_plain_event_equals_the_encoded_struct(self, text: str, has_usage: bool) -> None:
        head = ReplyHead(id="chatcmpl-1", created=7, model='"content":""', system_fingerprint='"content":""')
        out: list[bytes] = []
        ChatForm(head, has_logprobs=False, has_usage=has_usage).add_events(out, 2, TextPiece(text=text))
        chunk = ChatCompletionChunk(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=[ChunkChoice(index=2, delta=Delta(content=text))],
            system_fingerprint=head.system_fingerprint,
            usage=None if has_usage else msgspec.UNSET,
        )
        assert b"".join(out) == b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def test_closing_event_holds_the_usage(self) -> None:
        head = ReplyHead(id="chatcmpl-1", created=7, model="m", system_fingerprint="f")
        usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3, prompt_tokens_details=PromptTokensDetails())
        event = ChatForm(head, has_logprobs=False, has_usage=True).closing(usage)
        assert json.loads(event.removeprefix(b"data: "))["usage"]["total_tokens"] == 3
