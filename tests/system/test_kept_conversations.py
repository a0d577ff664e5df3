"""Conversations outlive their server: what was acknowledged is there after kill -9, with one worker or several."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.conversations.access import Conversations
from service.engine_provider import EngineProvider
from tests.batching.real_engine import engine_settings
from tests.system.conftest import running_paced
from tests.system.quire_process import QuireProcess, write_tiny_model
from tests.system.stream_client import FOREVER

PATH = "/v1/conversations"
CHAT = "/v1/chat/completions"
ALONE = {"connection": "close"}
"""Each request on a connection of its own, so that any worker may take it."""
LEASE_ENDS_WITHIN_S = 20.0


def turn(conversation: str, text: str, **options: Any) -> dict[str, Any]:
    return {"conversation": conversation, "messages": [{"role": "user", "content": text}], "max_tokens": 8} | options


def client_of(quire: QuireProcess) -> httpx.Client:
    return httpx.Client(base_url=quire.address, timeout=60, headers=ALONE)


def make(client: httpx.Client) -> str:
    made: str = client.post(PATH, json={}).raise_for_status().json()["id"]
    return made


def talk(client: httpx.Client, conversation: str, text: str, **options: Any) -> str:
    reply = client.post(CHAT, json=turn(conversation, text, **options)).raise_for_status()
    said: str = reply.json()["choices"][0]["message"]["content"]
    return said


def stored(client: httpx.Client, conversation: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{PATH}/{conversation}").raise_for_status().json()["messages"]
    return found


def begin_stream(client: httpx.Client, conversation: str, text: str) -> tuple[httpx.Response, Iterator[bytes]]:
    """A stream without an end, of which some text has come, and what is to come of it."""
    body = turn(conversation, text, stream=True, max_tokens=FOREVER, ignore_eos=True)
    reply = client.send(client.build_request("POST", CHAT, json=body), stream=True)
    chunks = reply.iter_raw()
    next(chunk for chunk in chunks if chunk.count(b'"content"') > chunk.count(b'"role"'))
    return reply, chunks


def kill_all(quire: QuireProcess) -> None:
    os.killpg(quire.process.pid, signal.SIGKILL)
    quire.process.wait()


@pytest.fixture
def flags(tmp_path: Path) -> tuple[str, ...]:
    return ("--conversations-db", str(tmp_path / "kept.db"))


@pytest.mark.slow
def test_turns_outlive_kill_minus_nine(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with running_paced(tmp_path, *flags) as quire, client_of(quire) as client:
        conversation = make(client)
        said = talk(client, conversation, "One")
        kill_all(quire)
    with running_paced(tmp_path, *flags) as quire, client_of(quire) as client:
        assert [message["content"] for message in stored(client, conversation)] == ["One", said]
        talk(client, conversation, "Two")
        assert [message["role"] for message in stored(client, conversation)] == ["user", "assistant"] * 2


@pytest.mark.slow
def test_message_outlives_kill_minus_nine_in_its_stream_and_is_taken_up_again(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with running_paced(tmp_path, *flags) as quire, client_of(quire) as client:
        conversation = make(client)
        said = talk(client, conversation, "One")
        reply, _chunks = begin_stream(client, conversation, "Two")
        kill_all(quire)
        reply.close()
    with running_paced(tmp_path, *flags) as quire, client_of(quire) as client:
        assert [message["content"] for message in stored(client, conversation)] == ["One", said, "Two"]
        began_s = time.monotonic()
        talk(client, conversation, "Two")
        assert time.monotonic() - began_s < LEASE_ENDS_WITHIN_S
        assert [message["role"] for message in stored(client, conversation)] == ["user", "assistant"] * 2


@pytest.mark.slow
def test_conversation_of_a_killed_worker_is_free_within_seconds(
    paced: Callable[..., QuireProcess], flags: tuple[str, ...]
) -> None:
    quire = paced("--workers", "2", *flags)
    with client_of(quire) as client:
        conversation = make(client)
        reply, chunks = begin_stream(client, conversation, "One")
        for pid in quire.worker_pids:
            os.kill(pid, signal.SIGKILL)
        reply.close()
        del chunks
        began_s = time.monotonic()
        until_accepted(client, conversation, "Two")
        assert time.monotonic() - began_s < LEASE_ENDS_WITHIN_S
        assert [message["content"] for message in stored(client, conversation)][:2] == ["One", "Two"]


def until_accepted(client: httpx.Client, conversation: str, text: str) -> None:
    """The workers are being replaced."""
    for _ in range(100):
        try:
            if client.post(CHAT, json=turn(conversation, text)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("nobody answers")


@pytest.mark.slow
async def test_posts_to_two_workers_do_not_interleave(
    paced: Callable[..., QuireProcess], flags: tuple[str, ...]
) -> None:
    quire = paced("--workers", "2", *flags)
    with client_of(quire) as client:
        conversation = make(client)
    async with httpx.AsyncClient(base_url=quire.address, timeout=60, headers=ALONE) as client:
        posts = [client.post(CHAT, json=turn(conversation, f"N{number}", max_tokens=20)) for number in range(8)]
        replies = await asyncio.gather(*posts)
    assert [reply.status_code for reply in replies] == [200] * 8
    with client_of(quire) as client:
        messages = stored(client, conversation)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 8
    assert {message["content"] for message in messages[::2]} == {f"N{number}" for number in range(8)}


@pytest.mark.slow
async def test_first_uses_in_all_workers_at_once_make_one_database(
    paced: Callable[..., QuireProcess], flags: tuple[str, ...]
) -> None:
    quire = paced("--workers", "3", *flags)
    async with httpx.AsyncClient(base_url=quire.address, timeout=60, headers=ALONE) as client:
        replies = await asyncio.gather(*(client.post(PATH, json={}) for _ in range(24)))
        assert [reply.status_code for reply in replies] == [200] * 24
        listed = await client.get(PATH, params={"limit": 100})
    assert len(listed.json()["data"]) == 24


@pytest.mark.slow
@pytest.mark.parametrize("obstacle", ["directory", "read-only place"])
def test_dead_database_stops_no_stateless_request(
    paced: Callable[..., QuireProcess], tmp_path: Path, obstacle: str
) -> None:
    path = tmp_path / "kept.db" if obstacle == "directory" else Path("/proc/kept.db")
    (tmp_path / "kept.db").mkdir()
    quire = paced("--conversations-db", str(path))
    with client_of(quire) as client:
        began_s = time.monotonic()
        refused = [client.post(PATH, json={}), client.get(PATH), client.post(CHAT, json=turn("conv_" + "0" * 32, "a"))]
        assert {reply.json()["error"]["code"] for reply in refused} == {"conversations_unavailable"}
        assert time.monotonic() - began_s < 3 * 2.5
        body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4}
        assert client.post(CHAT, json=body).status_code == 200
        assert client.get("/health/ready").status_code == 200


@pytest.mark.slow
def test_reply_that_a_drain_cuts_short_leaves_a_message_to_be_sent_again(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with running_paced(tmp_path, "--drain-timeout-s", "0.5", *flags) as quire, client_of(quire) as client:
        conversation = make(client)
        _, chunks = begin_stream(client, conversation, "One")
        quire.process.send_signal(signal.SIGTERM)
        assert b"shutting_down" in b"".join(chunks)
        assert quire.process.wait(20) == 0
    with running_paced(tmp_path, *flags) as quire, client_of(quire) as client:
        assert [(message["content"], message["error"]) for message in stored(client, conversation)] == [
            ("One", "shutting_down")
        ]


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A real engine with a tiny model in this process."""
    settings = Settings(
        engine=engine_settings(write_tiny_model(tmp_path / "tiny"), max_model_len=None),
        server=ServerSettings(conversations_db=str(tmp_path / "kept.db")),
    )
    app = create_app(settings)
    provider: EngineProvider = app.state.provider
    conversations: Conversations = app.state.conversations
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await provider.wait_until_loaded()
        yield client
        await conversations.close()


async def test_blocks_of_the_last_turn_are_used_again(real: httpx.AsyncClient) -> None:
    made = (await real.post(PATH, json={"system_prompt": "Answer at length, and with care."})).json()["id"]
    replies = [await real.post(CHAT, json=turn(made, f"Turn {number}."), timeout=60) for number in range(3)]
    usages = [reply.raise_for_status().json()["usage"] for reply in replies]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached[1] >= usages[0]["prompt_tokens"] // 16 * 16 > 0
    assert cached[2] >= usages[1]["prompt_tokens"] // 16 * 16
