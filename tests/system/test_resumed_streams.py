"""Requests outlive connections, clients and workers: their events are the same bytes, whoever tells them and when."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import openai
import pytest

from tests.system.conftest import running_paced
from tests.system.event_client import (
    DETACH,
    error_of,
    follow_to_end,
    followed,
    numbers_of,
    status_of,
    submitted,
    text_of,
)
from tests.system.paced_engine import HASTE
from tests.system.quire_process import READY, QuireProcess, running_quire, write_tiny_model
from tests.system.stream_client import is_idle, stats_of, until_ready, until_stats

SIZES = ("--kv-cache-memory", "64MiB", "--dtype", "float32", "--num-threads", "1", "--workers", "2")
DONE = "data: [DONE]"
LONG = 2000
NUM_TRIES = 40
"""Connections after which both of two workers have been met, but for one time in 10^11."""
SLACK_BYTES = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """Two workers before a random model, whose text is full of broken characters."""
    model = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    with running_quire(tmp_path_factory.mktemp("q"), "serve", str(model), "--port", "0", *SIZES) as quire:
        quire.wait_for(READY)
        yield quire


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """Two workers before an engine of ten milliseconds a step; for tests that let it go on."""
    with running_paced(tmp_path_factory.mktemp("q"), "--workers", "2") as quire:
        yield quire


async def test_every_worker_tells_the_same_bytes(tiny: QuireProcess) -> None:
    body = {"max_tokens": 100, "n": 2, "seed": 3, "logprobs": 1, "stream_options": {"include_usage": True}}
    async with submitted(tiny, body, **DETACH, **{"x-request-id": "told"}) as reader:
        original = await reader.take()
    assert original[-1] == DONE
    assert numbers_of(original) == list(range(1, len(original)))
    told = [await told_by(tiny, "told") for _ in range(NUM_TRIES)]
    assert {pid for pid, _ in told} == set(tiny.worker_pids)
    assert [events for _, events in told] == [original] * NUM_TRIES


async def told_by(quire: QuireProcess, name: str) -> tuple[int, list[str]]:
    """The events of a request, and the worker that happened to tell them."""
    async with followed(quire, name) as reader:
        return reader.worker_pid, await reader.take()


@pytest.mark.parametrize(
    "body", [{}, pytest.param({"n": 3}, marks=pytest.mark.slow), {"stop": "c"}], ids=["one", "samples", "stop"]
)
async def test_stream_cut_at_any_event_is_resumed_without_gap_or_repeat(
    slow: QuireProcess, body: dict[str, object]
) -> None:
    async with submitted(slow, {"max_tokens": 6, **body}, **DETACH) as reader:
        whole = [text_of([event]) for event in await reader.take()]
    tag = "-".join(body)
    resumed = [await cut_and_resume(slow, body, num_read, f"cut-{tag}-{num_read}") for num_read in range(len(whole))]
    assert [[text_of([event]) for event in events] for events in resumed] == [whole] * len(whole)
    assert [numbers_of(events) for events in resumed] == [list(range(1, len(whole)))] * len(whole)


async def cut_and_resume(quire: QuireProcess, body: dict[str, object], num_read: int, name: str) -> list[str]:
    """The events of a stream that is left behind `num_read` of them, and of the one that resumes it."""
    async with submitted(quire, {"max_tokens": 6, **body}, **DETACH, **{"x-request-id": name}) as reader:
        events = await reader.take(num_read)
    return events + await follow_to_end(quire, name, num_read)


async def test_client_that_reconnects_at_every_event_misses_none(slow: QuireProcess) -> None:
    async with submitted(slow, {"max_tokens": 30}, **DETACH, **{"x-request-id": "often"}) as reader:
        events = await reader.take(1)
    while events[-1] != DONE:
        async with followed(slow, "often", numbers_of(events)[-1]) as reader:
            events += await reader.take(1)
    assert events == await follow_to_end(slow, "often")
    assert len(text_of(events)) == 30


@pytest.mark.slow
async def test_detached_request_outlives_its_worker(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2")
    async with submitted(quire, {"max_tokens": 300}, **DETACH, **{"x-request-id": "kept"}) as reader:
        before = await reader.take(20)
        os.kill(reader.worker_pid, signal.SIGKILL)
        before += await reader.take()
    assert error_of(before) is None
    assert before[-1] != DONE
    rest = await follow_to_end(quire, "kept", numbers_of(before)[-1])
    assert numbers_of(before + rest) == list(range(1, 1 + 300 + 1 + 1))  # the opening, the text, the end
    assert len(text_of(before + rest)) == 300
    assert (await status_of(quire, "kept"))["status"] == "completed"
    await until_stats(quire.address, is_idle)


async def until_not_found(quire: QuireProcess, request_id: str) -> None:
    """Return when any worker says so; one whose engine is not back yet says that instead."""
    async with asyncio.timeout(20):
        while (await status_of(quire, request_id))["error"]["code"] != "not_found":
            await asyncio.sleep(0.05)


async def test_lost_engine_ends_followers_with_a_word(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2")
    async with AsyncExitStack() as stack:
        own = submitted(quire, {"max_tokens": LONG}, **DETACH, **{"x-request-id": "lost"})
        readers = [await stack.enter_async_context(own)]
        await readers[0].take(3)
        readers += [await stack.enter_async_context(followed(quire, "lost")) for _ in range(4)]
        await asyncio.gather(*(reader.take(1) for reader in readers))
        lost_s = time.monotonic()
        os.kill(quire.engine_pid, signal.SIGKILL)
        endings = await asyncio.gather(*(reader.take() for reader in readers))
    assert time.monotonic() - lost_s < 5.0
    assert [error_of(events) for events in endings] == ["engine_dead"] * 5
    await until_ready(quire.address)
    await until_not_found(quire, "lost")


async def test_cancel_reaches_any_worker_and_frees_everything(slow: QuireProcess) -> None:
    for number in range(8):  # over connections to either worker
        name = f"cancelled-{number}"
        headers = DETACH if number % 2 else {}
        async with submitted(slow, {"max_tokens": LONG}, **headers, **{"x-request-id": name}) as reader:
            await reader.take(3)
            told = await status_of(slow, name, "DELETE")
            num_steps = (await stats_of(slow.address))["num_steps"]
            assert (told["status"], told["finish_reason"]) == ("cancelled", "cancelled")
            assert error_of(await reader.take()) == "request_cancelled"
        stats = await until_stats(slow.address, is_idle, within_s=2.0)
        assert stats["num_steps"] - num_steps <= 60  # the numbers are up to half a second old
        assert (await status_of(slow, name, "DELETE"))["status"] == "cancelled"


@pytest.mark.slow
async def test_place_in_the_queue_is_told_and_can_be_given_up(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2", "--max-num-seqs", "1")
    async with submitted(quire, {"max_tokens": LONG}, **{"x-request-id": "first"}) as running:
        await running.take(2)
        waiting = []
        for name in ("second", "third"):
            client = asyncio.create_task(read_all(quire, name))
            waiting.append(client)
            while "error" in await status_of(quire, name):
                await asyncio.sleep(0.01)
        told = [await status_of(quire, name) for name in ("first", "second", "third")]
        assert [one["queue_position"] for one in told] == [None, 0, 1]
        assert [one["status"] for one in told] == ["running", "queued", "queued"]
        await status_of(quire, "second", "DELETE")
        assert error_of(await waiting[0]) == "request_cancelled"
        assert (await status_of(quire, "third"))["queue_position"] == 0
        await status_of(quire, "first", "DELETE")
    assert (await waiting[1])[-1] == DONE
    await until_stats(quire.address, is_idle)


async def read_all(quire: QuireProcess, name: str) -> list[str]:
    async with submitted(quire, {"max_tokens": 5}, **{"x-request-id": name}) as reader:
        return await reader.take()


@pytest.mark.slow
async def test_200_abandoned_requests_leave_nothing(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2", "--max-num-seqs", "256")
    await abandon(quire, 200)
    before = resident_bytes(quire)
    await abandon(quire, 200)
    after = resident_bytes(quire)
    assert all(after[pid] - before[pid] < SLACK_BYTES for pid in before)
    stats = await stats_of(quire.address)
    assert (stats["num_finished"], stats["num_aborted"], stats["num_failed"]) == (400, 0, 0)


async def abandon(quire: QuireProcess, num_requests: int) -> None:
    """Begin so many requests, leave them all, and wait for them to end by themselves."""
    await asyncio.gather(*(begin_and_leave(quire, index) for index in range(num_requests)))
    await until_stats(quire.address, is_idle)


async def begin_and_leave(quire: QuireProcess, index: int) -> None:
    async with submitted(quire, {"max_tokens": 20 + index}, **DETACH) as reader:
        assert len(await reader.take(1)) == 1


def resident_bytes(quire: QuireProcess) -> dict[int, int]:
    pages = {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in quire.pids()}
    return {pid: num * os.sysconf("SC_PAGE_SIZE") for pid, num in pages.items()}


@pytest.mark.slow
async def test_follower_that_does_not_read_hurts_nobody(slow: QuireProcess) -> None:
    options = {"max_tokens": 5000, "prompt": [HASTE], "n": 2}
    async with submitted(slow, options, **DETACH, **{"x-request-id": "watched"}) as reader:
        await reader.take(3)
        lazy = [follow_lazily(slow, "watched") for _ in range(4)]
        busy = await follow_to_end(slow, "watched")
        original = await reader.take()
    assert busy[-1] == original[-1] == DONE
    assert len(text_of(busy)) == 10_000
    for connection in lazy:
        connection.close()
    await until_stats(slow.address, is_idle)


def follow_lazily(quire: QuireProcess, name: str) -> socket.socket:
    """Ask for events and read none."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(quire.address.rpartition(":")[2])))
    connection.sendall(f"GET /v1/requests/{name}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    return connection


async def test_official_client_reads_numbered_events(slow: QuireProcess) -> None:
    client = openai.AsyncOpenAI(base_url=f"{slow.address}/v1", api_key="unused", max_retries=0)
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    model = (await client.models.list()).data[0].id
    texts = []
    for headers in ({}, DETACH):
        stream = await client.chat.completions.create(
            model=model, messages=messages, max_tokens=20, stream=True, extra_headers=headers
        )
        texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
    await client.close()
    assert texts[0] == texts[1]
    assert len(texts[0]) == 20
