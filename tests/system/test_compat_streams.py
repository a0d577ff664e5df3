"""Connect, then submit: by client id across two workers; what ends a stream, and what leaving or stalling costs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.system.compat_client import data_of, listening, submit
from tests.system.conftest import running_paced
from tests.system.quire_process import QuireProcess
from tests.system.stream_client import is_idle, stats_of, until_ready, until_stats

NUM_TRIES = 40
"""Connections after which both of two workers have been met, but for one time in 10^11."""
END = 'event: end\ndata: {"message":"Stream finished"}'


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """Two workers before an engine of ten milliseconds a step."""
    with running_paced(tmp_path_factory.mktemp("q"), "--workers", "2") as quire:
        yield quire


async def talk(quire: QuireProcess, client_id: str) -> tuple[int, list[str]]:
    """Which worker listened, and the first events of the answer."""
    async with listening(quire, client_id) as reader:
        reply = await submit(quire, client_id)
        assert reply.status_code == 202
        events = await reader.take(3)
        return reader.worker_pid, events


async def test_answer_comes_to_whoever_listens_wherever_it_was_posted(slow: QuireProcess) -> None:
    talks = [await talk(slow, f"client-{number}") for number in range(NUM_TRIES)]
    assert {pid for pid, _ in talks} == set(slow.worker_pids)
    tokens = {"".join(data_of(event)["token"] for event in events) for _, events in talks}
    assert len(tokens) == 1
    await until_stats(slow.address, is_idle)


@pytest.mark.slow
async def test_whole_stream_ends_with_end(slow: QuireProcess) -> None:
    async with listening(slow, "whole") as reader:
        assert (await submit(slow, "whole", context="A text.")).json() == {
            "message": "Chat request received and queued for processing."
        }
        events = await reader.take()
    assert events[-1] == END
    assert len("".join(data_of(event)["token"] for event in events[:-1])) == 1024


async def test_eight_at_once_do_not_mix(slow: QuireProcess) -> None:
    names = [f"many-{number}" for number in range(8)]
    talks = await asyncio.gather(*(talk(slow, name) for name in names))
    assert all(len(events) == 3 for _, events in talks)
    await until_stats(slow.address, is_idle)


async def test_nobody_listens(slow: QuireProcess) -> None:
    reply = await submit(slow, "nobody")
    assert reply.status_code == 404
    assert reply.json()["detail"] == "Client 'nobody' not connected."


@pytest.mark.parametrize("change", [{"prompt": 1}, {"prompt": " "}, {"client_id": ""}, {"client_id": "x" * 129}])
async def test_nonsense_is_422(slow: QuireProcess, change: dict[str, object]) -> None:
    async with httpx.AsyncClient() as client:
        body = {"prompt": "a", "client_id": "b"} | change
        reply = await client.post(f"{slow.address}/api/v1/chat/submit", json=body)
    assert (reply.status_code, reply.json()["status_code"]) == (422, 422)


async def test_connection_takes_one_prompt(slow: QuireProcess) -> None:
    async with listening(slow, "twice") as reader:
        assert (await submit(slow, "twice")).status_code == 202
        second = await submit(slow, "twice")
        assert (second.status_code, second.json()["error"]["code"]) == (409, "client_busy")
        assert "token" in data_of((await reader.take(1))[0])


async def test_newer_connection_ends_an_older_one_that_waits(slow: QuireProcess) -> None:
    for number in range(8):  # over connections to either worker
        name = f"again-{number}"
        async with listening(slow, name) as older, listening(slow, name) as newer:
            ended = await older.take()
            assert data_of(ended[0])["error"]["code"] == "client_replaced"
            assert [event.split("\n")[0] for event in ended] == ["event: error", "event: end"]
            assert (await submit(slow, name)).status_code == 202
            assert "token" in data_of((await newer.take(1))[0])


async def test_client_that_left_is_not_connected_any_more(slow: QuireProcess) -> None:
    async with listening(slow, "gone"):
        pass
    async with asyncio.timeout(10):
        while (await submit(slow, "gone")).status_code != 404:
            await asyncio.sleep(0.05)


async def test_client_that_leaves_frees_the_engine_within_two_steps(slow: QuireProcess) -> None:
    async with listening(slow, "leaver") as reader:
        await submit(slow, "leaver")
        await reader.take(3)
        num_steps = (await stats_of(slow.address))["num_steps"]
    stats = await until_stats(slow.address, is_idle, within_s=3.0)
    assert stats["num_steps"] - num_steps <= 60  # the numbers are up to half a second old


async def test_refused_prompt_is_an_error_before_the_end(slow: QuireProcess) -> None:
    async with listening(slow, "long") as reader:
        assert (await submit(slow, "long", prompt="a" * 1_200_000)).status_code == 202
        events = await reader.take()
    assert [event.split("\n")[0] for event in events] == ["event: error", "event: end"]
    told = data_of(events[0])
    assert (told["error"]["code"], told["status_code"]) == ("context_length_exceeded", 400)
    assert data_of(events[1]) == {"message": "Stream failed"}


async def test_active_connections_are_counted_over_all_workers(slow: QuireProcess) -> None:
    await until_count(slow, 0)
    async with listening(slow, "a"), listening(slow, "b"), listening(slow, "c"):
        await until_count(slow, 3)
    await until_count(slow, 0)


async def until_count(quire: QuireProcess, num_open: int) -> None:
    async with httpx.AsyncClient(headers={"connection": "close"}) as client, asyncio.timeout(10):
        while (await client.get(f"{quire.address}/")).json()["active_connections"] != num_open:
            await asyncio.sleep(0.05)


async def test_slow_reader_blocks_nobody(slow: QuireProcess) -> None:
    host, _, port = slow.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stalled.sendall(b"GET /api/v1/chat/stream/stalled HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.to_thread(stalled.recv, 16)
        assert (await submit(slow, "stalled")).status_code == 202
        began_s = time.monotonic()
        _, events = await talk(slow, "brisk")
        assert len(events) == 3
        assert time.monotonic() - began_s < 5
    await until_stats(slow.address, is_idle, within_s=60)


@pytest.mark.slow
async def test_lost_engine_is_an_error_and_the_server_goes_on(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2")
    async with listening(quire, "lost") as reader:
        await submit(quire, "lost")
        await reader.take(3)
        os.kill(quire.engine_pid, signal.SIGKILL)
        events = await reader.take()
    assert events[-2].startswith("event: error\n")
    assert data_of(events[-2])["error"]["code"] == "engine_dead"
    await until_ready(quire.address)


@pytest.mark.slow
async def test_killed_worker_forgets_its_clients(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2")
    async with listening(quire, "orphan") as reader:
        os.kill(reader.worker_pid, signal.SIGKILL)
        await reader.take()
    async with asyncio.timeout(20):
        while not await is_forgotten(quire):
            await asyncio.sleep(0.1)


async def is_forgotten(quire: QuireProcess) -> bool:
    try:
        return (await submit(quire, "orphan")).status_code == 404
    except httpx.TransportError:
        return False


@pytest.mark.slow
async def test_drain_ends_those_who_only_listen(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2")
    async with listening(quire, "waiting") as reader:
        quire.process.send_signal(signal.SIGTERM)
        events = await reader.take()
    assert data_of(events[0])["error"]["code"] == "shutting_down"
    assert quire.process.wait(20) == 0


async def test_cancelled_request_ends_with_an_error(slow: QuireProcess) -> None:
    async with listening(slow, "ended", **{"x-request-id": "ended-by-hand"}) as reader:
        await submit(slow, "ended")
        await reader.take(3)
        async with httpx.AsyncClient() as client:
            await client.delete(f"{slow.address}/v1/requests/ended-by-hand")
        events = await reader.take()
    assert data_of(events[-2])["error"]["code"] == "request_cancelled"
    assert data_of(events[-1]) == {"message": "Stream failed"}
