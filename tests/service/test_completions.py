"""POST /v1/completions: prompts of every kind, echo, log probabilities, order of choices."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest

from contracts.errors import QueueFull
from contracts.openai.completions import Completion, CompletionChoice
from service.detokenizer import TextPiece
from service.routes.completions import CompletionForm
from service.routes.generation import ReplyHead
from tests.fakes import FakeEngine, say

PATH = "/v1/completions"


def events_of(reply: httpx.Response) -> list[Any]:
    *events, done, rest = reply.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def texts_of(events: list[Any], num_choices: int) -> list[str]:
    choices = [choice for event in events for choice in event["choices"]]
    return ["".join(choice["text"] for choice in choices if choice["index"] == index) for index in range(num_choices)]


async def test_one_shot_reply_has_every_required_key(client: httpx.AsyncClient) -> None:
    body = (await client.post(PATH, json={"prompt": "ab"})).json()
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "text_completion",
        "model": "fake/model",
        "choices": [{"text": "Hello.", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "system_fingerprint": "quire-fake-0001",
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 7,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


@pytest.mark.parametrize(
    ("prompt", "seen"),
    [
        ("ab", [[97, 98]]),
        (["ab", "c"], [[97, 98], [99]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ],
)
async def test_every_kind_of_prompt_reaches_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, seen: list[list[int]]
) -> None:
    assert (await client.post(PATH, json={"prompt": prompt})).status_code == 200
    assert [request.prompt_token_ids for request in engine.requests] == seen


@pytest.mark.parametrize("is_stream", [True, False])
async def test_choice_index_counts_prompts_then_samples(
    client: httpx.AsyncClient, engine: FakeEngine, is_stream: bool
) -> None:
    engine.script = lambda request, sample: [request.prompt_token_ids[0], ord("0") + sample, 257]
    reply = await client.post(PATH, json={"prompt": ["a", "b"], "n": 2, "stream": is_stream})
    texts = texts_of(events_of(reply), 4) if is_stream else [choice["text"] for choice in reply.json()["choices"]]
    assert texts == ["a0", "a1", "b0", "b1"]


async def test_choices_of_a_stream_appear_first_in_order_and_end_once(client: httpx.AsyncClient) -> None:
    events = events_of(await client.post(PATH, json={"prompt": ["a", "b", "c"], "stream": True}))
    assert [event["choices"][0]["index"] for event in events[:3]] == [0, 1, 2]
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
    assert [reason for reason in reasons if reason is not None] == ["stop"] * 3


@pytest.mark.parametrize("is_stream", [True, False])
async def test_echo_puts_the_prompt_before_the_text(client: httpx.AsyncClient, is_stream: bool) -> None:
    reply = await client.post(PATH, json={"prompt": ["Say: ", "Now: "], "echo": True, "stream": is_stream})
    texts = texts_of(events_of(reply), 2) if is_stream else [choice["text"] for choice in reply.json()["choices"]]
    assert texts == ["Say: Hello.", "Now: Hello."]


async def test_logprobs_are_parallel_lists(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = say("ab")
    reply = await client.post(PATH, json={"prompt": "x", "logprobs": 2})
    assert reply.json()["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"a": 0.0, "b": -0.5}, {"b": 0.0, "c": -0.5}],
        "text_offset": [0, 1],
    }


async def test_streamed_logprobs_are_those_of_the_one_shot_reply(client: httpx.AsyncClient) -> None:
    body = {"prompt": "x", "logprobs": 1}
    whole = (await client.post(PATH, json=body)).json()["choices"][0]["logprobs"]
    events = events_of(await client.post(PATH, json=body | {"stream": True}))
    parts = [event["choices"][0]["logprobs"] for event in events if event["choices"][0]["logprobs"]]
    assert {key: [item for part in parts for item in part[key]] for key in whole} == whole


async def test_usage_counts_each_prompt_once(client: httpx.AsyncClient) -> None:
    body = {"prompt": ["ab", "c"], "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    *events, last = events_of(await client.post(PATH, json=body))
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (3, 28)
    assert all(event["usage"] is None for event in events)


async def test_refusal_of_a_later_prompt_frees_the_earlier_ones(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.refusal, engine.num_before_refusal = QueueFull("The queue is full.", retry_after_s=3.2), 2
    reply = await client.post(PATH, json={"prompt": ["a", "b", "c"], "stream": True})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "4"
    assert engine.aborted == [request.request_id for request in engine.requests]
    assert engine.stats().num_running == 0


@pytest.mark.parametrize("has_usage", [True, False])
@pytest.mark.parametrize("text", ["a", '"\\', "\u2028é\U0001f600", '"text":""'])
def test_plain_event_equals_the_encoded_struct(text: str, has_usage: bool) -> None:
    head = ReplyHead(id="cmpl-1", created=7, model='"text":""', system_fingerprint="f")
    out: list[bytes] = []
    form = CompletionForm(head, echoes=["", ""], has_logprobs=False, has_usage=has_usage)
    form.add_events(out, 1, TextPiece(text=text))
    completion = Completion(
        id="cmpl-1",
        created=7,
        model='"text":""',
        choices=[CompletionChoice(text=text, index=1)],
        system_fingerprint="f",
        usage=None if has_usage else msgspec.UNSET,
    )
    assert b"".join(out) == b"data: " + msgspec.json.encode(completion) + b"\n\n"
