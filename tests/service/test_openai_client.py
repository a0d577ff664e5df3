"""The official OpenAI client and a foreign SSE parser against a real server process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import httpx_sse
import openai
import pytest

from tests.system.fake_server import FakeServer, FakeServerOptions

TEXT = "abcdefghij"
MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "the alphabet"}]


@pytest.fixture(scope="module")
def server(start_server: Callable[[FakeServerOptions], FakeServer]) -> FakeServer:
    return start_server(FakeServerOptions(num_tokens=10))


@pytest.fixture
def client(server: FakeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: FakeServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_one_shot_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="fake/model", messages=MESSAGES, n=2)
    assert [choice.message.content for choice in reply.choices] == [TEXT, TEXT]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "stop"]
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 22
    assert reply._request_id is not None


def test_streamed_chat_through_the_accumulating_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="fake/model", messages=MESSAGES, n=2, stream_options={"include_usage": True}
    ) as stream:
        final = stream.until_done().get_final_completion()
    assert [choice.message.content for choice in final.choices] == [TEXT, TEXT]
    assert [choice.message.role for choice in final.choices] == ["assistant", "assistant"]
    assert final.usage is not None
    assert final.usage.completion_tokens == 22


def test_streamed_logprobs_accumulate(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="fake/model", messages=MESSAGES, logprobs=True, top_logprobs=2) as stream:
        final = stream.until_done().get_final_completion()
    logprobs = final.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == TEXT
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2] * 10


def test_one_shot_and_streamed_completion(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="fake/model", prompt=["x", "y"], max_tokens=4, logprobs=1)
    pieces = list(client.completions.create(model="fake/model", prompt="x", max_tokens=4, stream=True))
    assert [choice.text for choice in reply.choices] == ["abcd", "abcd"]
    assert "".join(piece.choices[0].text for piece in pieces) == "abcd"
    assert pieces[-1].choices[0].finish_reason == "length"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake/model"]
    assert client.models.retrieve("fake/model").owned_by == "quire"


async def test_async_one_shot_and_stream(async_client: openai.AsyncOpenAI) -> None:
    reply = await async_client.chat.completions.create(model="fake/model", messages=MESSAGES)
    stream = await async_client.chat.completions.create(model="fake/model", messages=MESSAGES, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert reply.choices[0].message.content == "".join(pieces) == TEXT


def test_bad_value_is_bad_request_with_its_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="fake/model", messages=MESSAGES, temperature=3)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id is not None


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_too_long_is_bad_request_with_its_code(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="fake/model", messages=MESSAGES, max_completion_tokens=10**9)
    assert caught.value.code == "context_length_exceeded"


def test_foreign_parser_reads_every_event(server: FakeServer) -> None:
    body = {"messages": MESSAGES, "stream": True}
    url = f"{server.url}/v1/chat/completions"
    with httpx.Client() as client, httpx_sse.connect_sse(client, "POST", url, json=body) as source:
        events = list(source.iter_sse())
    assert events[-1].data == "[DONE]"
    assert "".join(event.json()["choices"][0]["delta"].get("content", "") for event in events[:-1]) == TEXT
