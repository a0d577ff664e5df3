"""A chat request that names a conversation goes on with it, and what was said is kept before anyone is told."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from contracts.errors import QueueFull
from contracts.generation import FinishReason
from contracts.settings import ServerSettings
from tests.fakes import EOS, FakeEngine, say
from tests.service.routes.conversation_client import (
    CHAT,
    PATH,
    contents,
    error_of,
    make,
    prompt_of,
    stored,
    talk,
    turn_body,
)
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server


async def test_history_and_system_prompt_stand_before_the_message(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    conversation = await make(client, system_prompt="Be brief.")
    await talk(client, conversation, "One")
    await talk(client, conversation, "Two")
    assert prompt_of(engine) == ["system: Be brief.", "user: One", "assistant: Hello.", "user: Two", "assistant: "]


async def test_stream_is_kept_as_the_one_shot_reply_is(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    reply = await client.post(CHAT, json=turn_body(conversation, "One", stream=True))
    assert reply.text.endswith("data: [DONE]\n\n")
    (user, assistant) = await stored(client, conversation)
    assert (user["content"], user["error"]) == ("One", None)
    assert (assistant["content"], assistant["finish_reason"], assistant["model"]) == ("Hello.", "stop", "fake/model")


async def test_parts_are_kept_as_one_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": " two"}]
    body = {"conversation": conversation, "messages": [{"role": "user", "content": parts}]}
    assert (await client.post(CHAT, json=body)).status_code == 200
    assert (await contents(client, conversation))[0] == "One two"


async def test_request_wins_over_conversation_and_conversation_over_model(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    generation = {"temperature": 0.25, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "seed": 3, "max_tokens": 4}
    conversation = await make(client, generation=generation)
    await talk(client, conversation, "One")
    first = engine.requests[-1].sampling
    await talk(client, conversation, "Two", temperature=0.75, max_tokens=5)
    second = engine.requests[-1].sampling
    assert (first.temperature, first.top_p, first.top_k, first.min_p, first.seed) == (0.25, 0.5, 7, 0.1, 3)
    assert (first.max_tokens, second.max_tokens) == (4, 5)
    assert (second.temperature, second.top_p) == (0.75, 0.5)


async def test_system_message_of_a_request_holds_for_it_alone(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client, system_prompt="Be brief.")
    messages = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "One"}]
    await client.post(CHAT, json={"conversation": conversation, "messages": messages})
    assert prompt_of(engine)[0] == "system: Rhyme."
    await talk(client, conversation, "Two")
    assert prompt_of(engine)[0] == "system: Be brief."


async def test_model_of_the_conversation_is_asked_for(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client, model="gone/model")
    assert error_of(await client.post(CHAT, json=turn_body(conversation, "One"))) == (404, "model_not_found", "model")
    assert await contents(client, conversation) == []
    await talk(client, conversation, "One", model="fake/model")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"conversation": 7}, "conversation"),
        ({"conversation": ""}, "conversation"),
        ({"conversation": "x" * 65}, "conversation"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, change: dict[str, Any], param: str
) -> None:
    conversation = await make(client)
    reply = await client.post(CHAT, json=turn_body(conversation, "One") | change)
    assert error_of(reply)[::2] == (400, param)
    assert await contents(client, conversation) == []
    assert engine.requests == []


@pytest.mark.parametrize("conversation", ["conv_" + "0" * 32, "x", "conv_\u00e9", "../..", "%00"])
async def test_unknown_conversation_is_not_found(
    client: httpx.AsyncClient, engine: FakeEngine, conversation: str
) -> None:
    reply = await client.post(CHAT, json=turn_body(conversation, "One"))
    assert error_of(reply) == (404, "conversation_not_found", "conversation")


async def test_several_new_messages_are_one_turn(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    messages = [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3+3"},
    ]
    await client.post(CHAT, json={"conversation": conversation, "messages": messages})
    assert await contents(client, conversation) == ["2+2", "4", "3+3", "Hello."]


@pytest.mark.parametrize("is_stream", [True, False])
async def test_failed_engine_leaves_a_mark_and_a_retry_leaves_one_message(
    client: httpx.AsyncClient, engine: FakeEngine, is_stream: bool
) -> None:
    conversation = await make(client)
    engine.fail_after = 3
    failed = await client.post(CHAT, json=turn_body(conversation, "One", stream=is_stream))
    assert "engine_error" in failed.text
    assert "[DONE]" not in failed.text
    (user,) = await stored(client, conversation)
    assert (user["content"], user["error"]) == ("One", "engine_error")
    engine.fail_after = None
    await client.post(CHAT, json=turn_body(conversation, "One", stream=is_stream))
    user, assistant = await stored(client, conversation)
    assert (user["error"], assistant["content"]) == (None, "Hello.")
    assert prompt_of(engine) == ["user: One", "assistant: "]


async def test_message_without_a_reply_is_left_out_of_later_prompts(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    conversation = await make(client)
    engine.fail_after, engine.failure = 3, FinishReason.LOST
    await client.post(CHAT, json=turn_body(conversation, "Lost"))
    engine.fail_after = None
    await talk(client, conversation, "Found")
    assert prompt_of(engine) == ["user: Found", "assistant: "]
    assert await contents(client, conversation) == ["Lost", "Found", "Hello."]


async def test_refused_admission_leaves_a_mark_and_the_conversation_free(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    conversation = await make(client)
    engine.refusal = QueueFull("Full.", retry_after_s=3)
    assert error_of(await client.post(CHAT, json=turn_body(conversation, "One")))[:2] == (503, "queue_full")
    assert [message["error"] for message in await stored(client, conversation)] == ["queue_full"]
    engine.refusal = None
    await talk(client, conversation, "One")
    assert await contents(client, conversation) == ["One", "Hello."]


async def test_message_that_is_too_long_is_not_kept(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    reply = await client.post(CHAT, json=turn_body(conversation, "x" * 5000))
    assert error_of(reply) == (400, "context_length_exceeded", "messages")
    assert await contents(client, conversation) == []


@pytest.fixture
async def held(client: httpx.AsyncClient, engine: FakeEngine) -> AsyncIterator[asyncio.Event]:
    """No step begins before the event is set."""
    engine.gate.clear()
    yield engine.gate
    engine.gate.set()


async def test_posts_at_the_same_time_follow_each_other(
    client: httpx.AsyncClient, engine: FakeEngine, held: asyncio.Event
) -> None:
    conversation = await make(client)
    posts = [asyncio.create_task(talk(client, conversation, f"N{number}")) for number in range(4)]
    await engine.has_started.wait()
    await asyncio.sleep(0.05)
    assert len(engine.requests) == 1
    held.set()
    await asyncio.gather(*posts)
    said = await contents(client, conversation)
    assert said[1::2] == ["Hello."] * 4
    assert sorted(said[::2]) == ["N0", "N1", "N2", "N3"]


async def test_conversations_do_not_wait_for_each_other(
    client: httpx.AsyncClient, engine: FakeEngine, held: asyncio.Event
) -> None:
    made = [await make(client) for _ in range(3)]
    posts = [asyncio.create_task(talk(client, conversation, "Hi")) for conversation in made]
    async with asyncio.timeout(5):
        while len(engine.requests) < 3:
            await asyncio.sleep(0.01)
    held.set()
    await asyncio.gather(*posts)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_reply_that_cannot_be_kept_is_no_success(
    client: httpx.AsyncClient, engine: FakeEngine, held: asyncio.Event, database_path: Path, is_stream: bool
) -> None:
    conversation = await make(client)
    post = asyncio.create_task(client.post(CHAT, json=turn_body(conversation, "One", stream=is_stream)))
    await engine.has_started.wait()
    shutil.rmtree(database_path.parent)
    database_path.mkdir(parents=True)
    held.set()
    reply = await post
    assert reply.status_code == (200 if is_stream else 503)
    assert "conversations_unavailable" in reply.text
    assert "[DONE]" not in reply.text


async def test_reply_to_a_conversation_that_was_deleted_meanwhile_says_so(
    client: httpx.AsyncClient, engine: FakeEngine, held: asyncio.Event
) -> None:
    conversation = await make(client)
    post = asyncio.create_task(client.post(CHAT, json=turn_body(conversation, "One")))
    await engine.has_started.wait()
    await client.delete(f"{PATH}/{conversation}")
    held.set()
    assert error_of(await post)[:2] == (404, "conversation_not_found")


async def test_oldest_turns_are_left_out_and_stay_kept(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client, system_prompt="S", max_turns=4)
    replies = [await talk(client, conversation, f"N{number}") for number in range(6)]
    assert len(replies) == 6
    assert [line for line in prompt_of(engine) if line.startswith("user")] == [f"user: N{n}" for n in (2, 3, 4, 5)]
    assert prompt_of(engine)[0] == "system: S"
    assert len(await contents(client, conversation)) == 12


async def test_reply_is_made_anew_once_it_is_cut_off(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    await talk(client, conversation, "One")
    first_reply = (await stored(client, conversation))[1]["id"]
    await talk(client, conversation, "Two")
    cut = await client.delete(f"{PATH}/{conversation}/messages/{first_reply}")
    assert cut.json()["num_messages"] == 1
    engine.script = say("Better.")
    await talk(client, conversation, "One")
    await talk(client, conversation, "Three")
    assert await contents(client, conversation) == ["One", "Better.", "Three", "Better."]
    assert prompt_of(engine) == ["user: One", "assistant: Better.", "user: Three", "assistant: "]


async def test_message_is_written_anew_once_it_is_cut_off(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    await talk(client, conversation, "One")
    first = (await stored(client, conversation))[0]["id"]
    await client.delete(f"{PATH}/{conversation}/messages/{first}")
    await talk(client, conversation, "Two")
    assert await contents(client, conversation) == ["Two", "Hello."]


@pytest.mark.parametrize("message_id", ["msg_" + "0" * 32, "x", "%00"])
async def test_message_that_is_not_there_cuts_nothing(client: httpx.AsyncClient, message_id: str) -> None:
    conversation = await make(client)
    await talk(client, conversation, "One")
    reply = await client.delete(f"{PATH}/{conversation}/messages/{message_id}")
    assert error_of(reply) == (404, "not_found", "message_id")
    assert len(await contents(client, conversation)) == 2
    await talk(client, conversation, "Two")


class TestSmallWindow:
    """256 tokens, one for each byte."""

    @pytest.fixture
    def engine(self, model_path: Path) -> FakeEngine:
        return FakeEngine(model_path, say("y" * 20), max_model_len=256)

    async def test_prompt_and_reply_stay_within_the_window(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        conversation = await make(client, system_prompt="System")
        for number in range(12):
            await talk(client, conversation, f"{number:02}" + "x" * 18, max_tokens=32)
            assert len(engine.requests[-1].prompt_token_ids) + 32 <= 256
            assert prompt_of(engine)[0] == "system: System"
            assert prompt_of(engine)[-2].startswith(f"user: {number:02}")
        assert len(await contents(client, conversation)) == 24

    async def test_beginning_stays_for_several_turns(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        conversation = await make(client)
        firsts = []
        for number in range(16):
            await talk(client, conversation, f"{number:02}", max_tokens=32)
            firsts.append(prompt_of(engine)[0])
        changes = sum(before != after for before, after in itertools.pairwise(firsts))
        assert 2 <= changes <= 8

    async def test_a_quarter_is_left_for_a_reply_without_limit(
        self, client: httpx.AsyncClient, engine: FakeEngine
    ) -> None:
        conversation = await make(client)
        for _ in range(8):
            await talk(client, conversation, "x" * 20)
            assert engine.requests[-1].sampling.max_tokens >= 64

    async def test_new_message_goes_alone_where_nothing_else_fits(
        self, client: httpx.AsyncClient, engine: FakeEngine
    ) -> None:
        conversation = await make(client)
        await talk(client, conversation, "One")
        await talk(client, conversation, "x" * 200)
        assert prompt_of(engine) == ["user: " + "x" * 200, "assistant: "]


async def test_cached_prompt_tokens_are_told(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.num_cached_tokens = 16
    reply = await talk(client, await make(client), "One")
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 16


async def test_no_text_is_logged(
    client: httpx.AsyncClient, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.script = say("canary-of-the-reply")
    conversation = await make(client, title="canary-of-the-title", system_prompt="canary-of-the-system")
    await talk(client, conversation, "canary-of-the-user")
    engine.fail_after = 2
    await client.post(CHAT, json=turn_body(conversation, "canary-again"))
    await client.get(PATH, params={"q": "canary-of-the-search"})
    captured = capsys.readouterr()
    assert "conversations_opened" in captured.out
    assert "canary" not in captured.out + captured.err


async def test_nul_in_a_reply_is_kept_as_a_replacement(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda request, sample: [ord("a"), 0, ord("b"), EOS]
    conversation = await make(client)
    await talk(client, conversation, "One")
    assert (await contents(client, conversation))[1] == "a\ufffdb"


class TestLeavingClients:
    """Through a real granian, where clients can leave."""

    @pytest.fixture
    def server(self, database_path: Path) -> Any:
        options = FakeServerOptions(
            num_tokens=5000, interval_s=0.01, server=ServerSettings(conversations_db=str(database_path))
        )
        with running_server(options) as server:
            yield server

    @pytest.fixture
    def conversation(self, server: FakeServer) -> str:
        with server.client() as client:
            made: str = client.post(PATH, json={}).json()["id"]
            return made

    def messages(self, server: FakeServer, conversation: str, until: Callable[[list[Any]], bool]) -> list[Any]:
        """Once they are as wanted, and at most after five seconds."""
        found: list[Any]
        deadline_s = time.monotonic() + 5
        with server.client() as client:
            while not until(found := client.get(f"{PATH}/{conversation}").json()["messages"]):
                assert time.monotonic() < deadline_s, found
                time.sleep(0.02)
        return found

    def post(self, server: FakeServer, conversation: str, text: str, *, is_stream: bool) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        body = msgspec.json.encode(turn_body(conversation, text, stream=is_stream))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection

    def read_text(self, connection: socket.socket) -> None:
        received = b""
        while received.count(b"data: ") < 5:
            received += connection.recv(65536)

    def test_partial_reply_of_a_stream_is_kept(self, server: FakeServer, conversation: str) -> None:
        connection = self.post(server, conversation, "One", is_stream=True)
        self.read_text(connection)
        connection.close()
        user, assistant = self.messages(server, conversation, lambda found: len(found) == 2)
        assert assistant["finish_reason"] == "cancelled"
        assert assistant["content"].startswith("abc")
        assert user["error"] is None

    def test_one_shot_reply_that_nobody_saw_is_not_kept(self, server: FakeServer, conversation: str) -> None:
        connection = self.post(server, conversation, "One", is_stream=False)
        self.messages(server, conversation, lambda found: len(found) == 1)
        time.sleep(0.1)
        connection.close()
        (user,) = self.messages(server, conversation, lambda found: found[0]["error"] is not None)
        assert user["error"] == "cancelled"

    def test_client_that_leaves_the_queue_leaves_nothing(self, server: FakeServer, conversation: str) -> None:
        first = self.post(server, conversation, "One", is_stream=True)
        self.read_text(first)
        second = self.post(server, conversation, "Two", is_stream=True)
        time.sleep(0.2)
        second.close()
        time.sleep(0.2)
        first.close()
        time.sleep(0.3)
        found = self.messages(server, conversation, lambda found: len(found) == 2)
        assert [message["role"] for message in found] == ["user", "assistant"]
