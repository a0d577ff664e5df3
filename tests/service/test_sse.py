"""The event stream writer: one send per wake-up, ends with the client, never stalls, never spins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.sse import EventStreamReply, run_until_disconnect

HEAD: Any = {"type": "http"}


class Wire:
    """An ASGI connection: records what is sent, blocks while `is_writable` is clear, ends when `leave` is called."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.has_sent = asyncio.Event()
        self.is_writable = asyncio.Event()
        self.is_writable.set()
        self._is_gone = asyncio.Event()

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message["type"] == "http.response.body"]

    def leave(self) -> None:
        self._is_gone.set()

    async def receive(self) -> Any:
        await self._is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        self.has_sent.set()
        await self.is_writable.wait()


class Source:
    """Batches put by the test; remembers how it ended."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.num_closed = 0
        self.is_finalised = False

    def close(self) -> None:
        self.num_closed += 1

    async def batches(self) -> AsyncIterator[bytes]:
        try:
            while (batch := await self.queue.get()) is not None:
                yield batch
        finally:
            self.is_finalised = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def reply_to(wire: Wire, source: Source) -> Callable[..., asyncio.Task[None]]:
    """Starts the reply as a task."""

    def start(**options: Any) -> asyncio.Task[None]:
        reply = EventStreamReply(source.batches(), source.close, **options)
        return asyncio.create_task(reply(HEAD, wire.receive, wire.send))

    return start


async def test_head_goes_out_before_the_first_batch(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    reply = reply_to(extra_headers=[(b"x-extra", b"1")])
    await wire.has_sent.wait()
    assert wire.sent[0]["status"] == 200
    assert (b"x-extra", b"1") in wire.sent[0]["headers"]
    await source.queue.put(None)
    await reply


async def test_each_batch_is_one_send_and_the_end_closes_the_body(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    for batch in (b"data: 1\n\ndata: 2\n\n", b"data: [DONE]\n\n", None):
        source.queue.put_nowait(batch)
    await reply_to()
    assert wire.bodies == [b"data: 1\n\ndata: 2\n\n", b"data: [DONE]\n\n", b""]
    assert [message.get("more_body") for message in wire.sent[1:]] == [True, True, False]
    assert source.num_closed == 1


async def test_leaving_while_waiting_for_tokens_closes_the_source(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    reply = reply_to()
    await wire.has_sent.wait()
    wire.leave()
    await asyncio.wait_for(reply, 1)
    assert (source.num_closed, source.is_finalised) == (1, True)
    assert wire.bodies == []


async def test_leaving_while_a_send_is_blocked_closes_the_source(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    reply = reply_to()
    await wire.has_sent.wait()
    wire.has_sent.clear()
    wire.is_writable.clear()
    source.queue.put_nowait(b"data: 1\n\n")
    await wire.has_sent.wait()
    wire.leave()
    await asyncio.wait_for(reply, 1)
    assert (source.num_closed, source.is_finalised) == (1, True)


async def test_client_that_left_before_the_start_costs_nothing(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    wire.leave()
    await asyncio.wait_for(reply_to(), 1)
    assert source.num_closed == 1


async def test_blocked_send_is_given_up_after_the_stall_timeout(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    wire.is_writable.clear()
    await asyncio.wait_for(reply_to(stall_timeout_s=0.02, tick_s=0.005), 1)
    assert source.num_closed == 1


async def test_slow_model_is_no_stall(wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]) -> None:
    reply = reply_to(stall_timeout_s=0.01, tick_s=0.005)
    await asyncio.sleep(0.05)
    source.queue.put_nowait(b"data: late\n\n")
    source.queue.put_nowait(None)
    await reply
    assert wire.bodies == [b"data: late\n\n", b""]


async def test_silence_is_broken_by_comments(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    reply = reply_to(heartbeat_s=0.01, tick_s=0.005)
    await wire.has_sent.wait()
    wire.has_sent.clear()
    await asyncio.wait_for(wire.has_sent.wait(), 1)
    source.queue.put_nowait(None)
    await reply
    assert wire.bodies[0] == b": keep-alive\n\n"
    assert wire.bodies[-1] == b""


async def test_cancelled_reply_closes_the_source(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    reply = reply_to()
    await wire.has_sent.wait()
    reply.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reply
    assert (source.num_closed, source.is_finalised) == (1, True)


async def test_no_task_outlives_the_reply(
    wire: Wire, source: Source, reply_to: Callable[..., asyncio.Task[None]]
) -> None:
    before = asyncio.all_tasks()
    source.queue.put_nowait(None)
    await reply_to()
    assert asyncio.all_tasks() == before


async def test_work_is_cancelled_when_the_client_leaves(wire: Wire) -> None:
    is_cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_cancelled.set()

    wire.leave()
    await asyncio.wait_for(run_until_disconnect(wire.receive, work()), 1)
    assert is_cancelled.is_set()


async def test_error_of_the_work_is_raised(wire: Wire) -> None:
    async def work() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        await run_until_disconnect(wire.receive, work())
