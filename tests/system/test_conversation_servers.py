"""Servers that share one database of conversations, are killed under load, are stopped, or lose their disk."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.settings import ServerSettings
from tests.postgres_server import PostgresServer
from tests.system.conftest import running_paced
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server
from tests.system.quire_process import QuireProcess

PATH, CHAT = "/v1/conversations", "/v1/chat/completions"
NUM_POSTS = 200
NUM_BEFORE_KILL = 40
LEASE_S = 6.0
WITHIN_S = 60.0


def turn(conversation: str, text: str, **options: Any) -> dict[str, Any]:
    return {"conversation": conversation, "messages": [{"role": "user", "content": text}], "max_tokens": 8} | options


def client_of(quire: QuireProcess | FakeServer) -> httpx.Client:
    address = quire.address if isinstance(quire, QuireProcess) else quire.url
    return httpx.Client(base_url=address, timeout=WITHIN_S)


def stored(client: httpx.Client, conversation: str) -> list[str]:
    found = client.get(f"{PATH}/{conversation}").raise_for_status().json()["messages"]
    return [message["content"] for message in found]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> ServerSettings:
    """What servers that share an empty database are told."""
    if request.param == "sqlite":
        return ServerSettings(conversations_db=str(tmp_path / "kept.db"))
    server: PostgresServer = request.getfixturevalue("postgres")
    return ServerSettings(conversations_url=server.url)


@contextmanager
def whole_server(directory: Path, database: ServerSettings) -> Iterator[QuireProcess]:
    """Supervisor, worker and engine."""
    directory.mkdir()
    flags = () if database.conversations_db is None else ("--conversations-db", database.conversations_db)
    with pytest.MonkeyPatch.context() as patch:
        if database.conversations_url is not None:
            patch.setenv("LLM_CONVERSATIONS_URL", database.conversations_url)
        with running_paced(directory, *flags) as quire:
            yield quire


@pytest.fixture
def pair(database: ServerSettings) -> Iterator[tuple[FakeServer, FakeServer]]:
    """Two servers, each one process, with engines that take ten milliseconds for a token."""
    options = FakeServerOptions(server=database, num_tokens=5000, interval_s=0.01)
    with running_server(options) as one, running_server(options) as other:
        yield one, other


def kill_writers(quire: QuireProcess) -> None:
    """The supervisor, which would start another worker, and the worker, which writes; the engine then ends itself."""
    for pid in (quire.process.pid, *quire.worker_pids):
        os.kill(pid, signal.SIGKILL)


async def post_and_kill(quire: QuireProcess, conversations: list[str]) -> dict[str, tuple[str, str]]:
    """Post to all at the same time, kill everything in the middle; what was acknowledged, by conversation."""
    told: dict[str, tuple[str, str]] = {}

    async def post(client: httpx.AsyncClient, number: int) -> None:
        conversation = conversations[number % len(conversations)]
        try:
            reply = await client.post(CHAT, json=turn(conversation, f"N{number}"))
        except httpx.TransportError:
            return
        if reply.status_code == 200:
            told[f"N{number}"] = (conversation, reply.json()["choices"][0]["message"]["content"])
        if len(told) == NUM_BEFORE_KILL:
            kill_writers(quire)

    limits = httpx.Limits(max_connections=NUM_POSTS)
    async with httpx.AsyncClient(base_url=quire.address, timeout=WITHIN_S, limits=limits) as client:
        await asyncio.gather(*(post(client, number) for number in range(NUM_POSTS)))
    quire.process.wait()
    return told


def is_kept(found: list[str], text: str, answer: str) -> bool:
    """The message stands there once, with its answer behind it."""
    return found.count(text) == 1 and found[found.index(text) + 1] == answer


@pytest.mark.slow
async def test_two_hundred_posts_at_once_and_a_kill_lose_nothing_acknowledged(
    database: ServerSettings, tmp_path: Path
) -> None:
    """Two to each conversation."""
    with whole_server(tmp_path / "first", database) as quire:
        with client_of(quire) as client:
            made = [client.post(PATH, json={}).raise_for_status().json()["id"] for _ in range(NUM_POSTS // 2)]
        told = await post_and_kill(quire, made)
    assert NUM_BEFORE_KILL <= len(told) < NUM_POSTS
    with whole_server(tmp_path / "second", database) as quire, client_of(quire) as client:
        found = {conversation: stored(client, conversation) for conversation in made}
        lost = {text for text, (one, answer) in told.items() if not is_kept(found[one], text, answer)}
        assert lost == set()
        again = {one: client.post(CHAT, json=turn(one, "Again")).status_code for one in made[:20]}
    assert set(again.values()) == {200}


def begin_stream(client: httpx.Client, conversation: str, text: str, max_tokens: int) -> Iterator[bytes]:
    """What is still to come of a stream whose first text is there; whoever drops it leaves."""
    body = turn(conversation, text, stream=True, max_tokens=max_tokens)
    chunks = client.send(client.build_request("POST", CHAT, json=body), stream=True).iter_raw()
    next(chunk for chunk in chunks if chunk.count(b'"content"') > chunk.count(b'"role"'))
    return chunks


def test_post_to_a_conversation_of_another_server_waits_for_its_turn(pair: tuple[FakeServer, FakeServer]) -> None:
    with client_of(pair[0]) as first, client_of(pair[1]) as second:
        made = first.post(PATH, json={}).json()["id"]
        chunks = begin_stream(first, made, "One", 200)
        answer = second.post(CHAT, json=turn(made, "Two")).raise_for_status().json()
        assert b"[DONE]" in b"".join(chunks)
        assert answer["usage"]["prompt_tokens"] > 200
        found = stored(second, made)
    assert found[0::2] == ["One", "Two"]
    assert len(found) == 4


@pytest.mark.slow
def test_server_that_was_stopped_longer_than_its_lease_writes_nothing_over_another(
    pair: tuple[FakeServer, FakeServer],
) -> None:
    with client_of(pair[0]) as first, client_of(pair[1]) as second:
        made = first.post(PATH, json={}).json()["id"]
        chunks = begin_stream(first, made, "Late", 300)
        os.kill(pair[0].pid, signal.SIGSTOP)
        time.sleep(LEASE_S + 0.5)
        second.post(CHAT, json=turn(made, "Second")).raise_for_status()
        os.kill(pair[0].pid, signal.SIGCONT)
        end = b"".join(chunks)
        assert b"conversation_busy" in end
        assert b"[DONE]" not in end
        found = stored(second, made)
        assert found[:2] == ["Late", "Second"]
        assert len(found) == 3
        first.post(CHAT, json=turn(made, "Third")).raise_for_status()
        assert len(stored(second, made)) == 5


def test_database_server_that_stops_is_told_and_used_again_when_it_is_back(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    options = FakeServerOptions(server=ServerSettings(conversations_url=postgres.url))
    with running_server(options) as server, client_of(server) as client:
        made = client.post(PATH, json={}).raise_for_status().json()["id"]
        client.post(CHAT, json=turn(made, "One")).raise_for_status()
        postgres.stop(signal.SIGQUIT)
        refused = [client.post(CHAT, json=turn(made, "Two")), client.get(f"{PATH}/{made}"), client.post(PATH, json={})]
        assert {reply.status_code for reply in refused} == {503}
        assert {reply.json()["error"]["code"] for reply in refused} == {"conversations_unavailable"}
        stateless = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        assert client.post(CHAT, json=stateless).status_code == 200
        assert client.get("/health/ready").status_code == 200
        postgres.start()
        client.post(CHAT, json=turn(made, "Two")).raise_for_status()
        assert stored(client, made)[0::2] == ["One", "Two"]


def test_disk_that_takes_no_more_is_told_and_used_again_when_it_does(tmp_path: Path) -> None:
    """No file of the process may grow: what the system answers is genuine."""
    options = FakeServerOptions(server=ServerSettings(conversations_db=str(tmp_path / "data" / "kept.db")))
    with running_server(options) as server, client_of(server) as client:
        made = client.post(PATH, json={}).raise_for_status().json()["id"]
        client.post(CHAT, json=turn(made, "One")).raise_for_status()
        big = {"messages": [{"role": "user", "content": "x" * 1_000_000}]}
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (256 * 1024, hard))
        refused = client.post(f"{PATH}/import", json=big)
        assert refused.status_code in {503, 507}
        assert refused.json()["error"]["code"] in {"conversations_unavailable", "storage_full"}
        stateless = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        assert client.post(CHAT, json=stateless).status_code == 200
        assert stored(client, made)[0] == "One"
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        client.post(f"{PATH}/import", json=big).raise_for_status()
        client.post(CHAT, json=turn(made, "Two")).raise_for_status()
        assert stored(client, made)[0::2] == ["One", "Two"]
