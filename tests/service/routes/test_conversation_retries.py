"""A message that is sent again with its idempotency key is kept once and answered once, whatever was lost before."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest

from service.conversations.access import OpenConversations
from tests.fakes import FakeEngine, say
from tests.service.conversations.store_faults import failing_commit, sqlite_error, watched
from tests.service.routes.conversation_client import CHAT, PATH, contents, error_of, make, prompt_of, stored, turn_body

KEY = {"idempotency-key": "a1b2-c3"}
MAX_ATTEMPTS = 3


def opened_by(client: httpx.AsyncClient) -> OpenConversations:
    """What the application uses; it must have been asked something."""
    opened = cast("Any", client)._transport.app.state.conversations._opened
    assert isinstance(opened, OpenConversations)
    return opened


async def send(client: httpx.AsyncClient, conversation: str, text: str, **options: Any) -> httpx.Response:
    return await client.post(CHAT, json=turn_body(conversation, text, **options), headers=KEY)


async def send_until_answered(client: httpx.AsyncClient, conversation: str, text: str, *, is_stream: bool) -> None:
    for _ in range(MAX_ATTEMPTS):
        reply = await send(client, conversation, text, stream=is_stream)
        if reply.status_code == 200 and (not is_stream or "[DONE]" in reply.text):
            return
    raise AssertionError("never answered")


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("is_done", [True, False], ids=["acknowledgement lost", "not done"])
@pytest.mark.parametrize("number", range(5))
async def test_turn_is_kept_once_whichever_commit_fails(
    client: httpx.AsyncClient, engine: FakeEngine, number: int, is_done: bool, is_stream: bool
) -> None:
    """Of the lease, of looking for the key, of the message, of the reply, and of what a failed turn leaves."""
    conversation = await make(client)
    with failing_commit(opened_by(client), number, is_done=is_done):
        await send_until_answered(client, conversation, "One", is_stream=is_stream)
    assert [(one["content"], one["error"]) for one in await stored(client, conversation)] == [
        ("One", None),
        ("Hello.", None),
    ]


async def test_answer_is_given_again_without_asking_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    first = (await send(client, conversation, "One")).json()
    engine.script = say("Something else.")
    again = await send(client, conversation, "One")
    body = again.json()
    assert (again.status_code, again.headers["x-quire-replayed"]) == (200, "true")
    assert body["choices"] == first["choices"]
    assert (body["model"], body["usage"]["total_tokens"]) == (first["model"], 0)
    assert len(engine.requests) == 1
    assert await contents(client, conversation) == ["One", "Hello."]


async def test_answer_is_given_again_as_a_stream(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    await send(client, conversation, "One")
    again = await send(client, conversation, "One", stream=True, stream_options={"include_usage": True})
    assert again.headers["content-type"].startswith("text/event-stream")
    assert '"Hello."' in again.text
    assert '"finish_reason":"stop"' in again.text
    assert again.text.endswith("data: [DONE]\n\n")


async def test_key_of_an_earlier_turn_still_finds_its_answer(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    await send(client, conversation, "One")
    await client.post(CHAT, json=turn_body(conversation, "Two"))
    again = await send(client, conversation, "One")
    assert again.headers["x-quire-replayed"] == "true"
    assert len(await contents(client, conversation)) == 4


async def test_other_key_and_other_conversation_are_turns_of_their_own(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    conversation, other = await make(client), await make(client)
    await send(client, conversation, "One")
    await client.post(CHAT, json=turn_body(conversation, "One"), headers={"idempotency-key": "other"})
    await send(client, other, "One")
    assert await contents(client, conversation) == ["One", "Hello."] * 2
    assert await contents(client, other) == ["One", "Hello."]


async def test_key_of_another_message_is_refused(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    await send(client, conversation, "One")
    assert error_of(await send(client, conversation, "Two")) == (400, "invalid_value", "idempotency-key")
    assert await contents(client, conversation) == ["One", "Hello."]
    await client.post(CHAT, json=turn_body(conversation, "Two"))


async def test_failed_turn_is_taken_up_by_its_key(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    engine.fail_after = 3
    await send(client, conversation, "One")
    engine.fail_after = None
    assert (await send(client, conversation, "One")).status_code == 200
    assert await contents(client, conversation) == ["One", "Hello."]
    assert (await send(client, conversation, "One")).headers["x-quire-replayed"] == "true"


async def test_failed_turn_that_others_followed_is_said_anew(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    engine.fail_after = 3
    await send(client, conversation, "One")
    engine.fail_after = None
    await client.post(CHAT, json=turn_body(conversation, "Two"))
    await send(client, conversation, "One")
    assert (await send(client, conversation, "One")).headers["x-quire-replayed"] == "true"
    assert await contents(client, conversation) == ["One", "Two", "Hello.", "One", "Hello."]


async def test_answer_that_was_cut_off_is_made_anew(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    await send(client, conversation, "One")
    reply_id = (await stored(client, conversation))[1]["id"]
    await client.delete(f"{PATH}/{conversation}/messages/{reply_id}")
    engine.script = say("Better.")
    await send(client, conversation, "One")
    assert await contents(client, conversation) == ["One", "Better."]


async def test_reply_that_its_leaving_client_broke_off_is_made_whole(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    conversation = await make(client)
    await send(client, conversation, "One", stream=True)
    await rewrite_as_cancelled(client)
    again = await send(client, conversation, "One", stream=True)
    assert "x-quire-replayed" not in again.headers
    assert prompt_of(engine) == ["user: One", "assistant: "]
    assert [(one["content"], one["finish_reason"]) for one in await stored(client, conversation)] == [
        ("One", None),
        ("Hello.", "stop"),
    ]


async def rewrite_as_cancelled(client: httpx.AsyncClient) -> None:
    """As a stream is kept whose client has left; requests inside the process cannot leave."""
    from sqlalchemy import text

    query = "UPDATE quire_message SET content = 'Hel___', finish_reason = 'cancelled' WHERE role = 'assistant'"
    await opened_by(client)._database.write(lambda session: session.execute(text(query)))


async def test_two_at_once_with_one_key_are_one_turn(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    conversation = await make(client)
    replies = await asyncio.gather(*(send(client, conversation, "One") for _ in range(4)))
    assert [reply.status_code for reply in replies] == [200] * 4
    assert len(engine.requests) == 1
    assert await contents(client, conversation) == ["One", "Hello."]


@pytest.mark.parametrize("key", ["", " ", "a b", "a\u00e9".encode(), "x" * 256, "a\tb"])
async def test_key_that_is_none_is_refused(client: httpx.AsyncClient, engine: FakeEngine, key: str | bytes) -> None:
    conversation = await make(client)
    headers = {b"idempotency-key": key if isinstance(key, bytes) else key.encode()}
    reply = await client.post(CHAT, json=turn_body(conversation, "One"), headers=headers)
    assert error_of(reply) == (400, "invalid_value", "idempotency-key")
    assert await contents(client, conversation) == []


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("SQLITE_FULL", 507, "storage_full"), ("SQLITE_IOERR", 503, "conversations_unavailable")],
)
async def test_disk_that_fails_is_told_and_stops_no_stateless_request(
    client: httpx.AsyncClient, engine: FakeEngine, name: str, status: int, code: str
) -> None:
    conversation = await make(client)
    stateless = {"messages": [{"role": "user", "content": "hi"}]}
    with watched(opened_by(client), 1, lambda: sqlite_error("the disk", name)):
        failed = await client.post(CHAT, json=turn_body(conversation, "One"))
        assert (await client.post(CHAT, json=stateless)).status_code == 200
    assert error_of(failed)[:2] == (status, code)
    assert "retry-after" in failed.headers
    assert failed.headers["x-should-retry"] == "true"
    assert (await client.post(CHAT, json=turn_body(conversation, "One"))).status_code == 200
    assert await contents(client, conversation) == ["One", "Hello."]
