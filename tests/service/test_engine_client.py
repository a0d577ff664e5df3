"""A worker outlives its engine: what had begun ends with an error, the rest is sent again, nothing waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts import engine as engine_contract
from contracts.engine import DeltaStream
from contracts.errors import (
    ContextLengthExceeded,
    EngineDead,
    EngineError,
    InvalidValue,
    QueueFull,
    QuireError,
    ShuttingDown,
)
from contracts.frames import Abort, Admitted, Alive, ErrorReport, Refused, Submit, encode_frame
from contracts.generation import FinishReason, GenerationRequest
from contracts.sampling import SamplingParams
from service import engine_client
from service.engine_client import LOST, POISON, EngineClient
from tests.batching.engine_rig import errors_of, finals_of, read, tokens_of, until
from tests.service.scripted_engine import HELLO, PATIENCE_S, STATS, ScriptedEngine, scripted_engine

SILENT_S = 1.0
"""Two beats."""


def request_of(request_id: str, **options: Any) -> GenerationRequest:
    return GenerationRequest(request_id=request_id, prompt_token_ids=[1], sampling=SamplingParams(), **options)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(tmp_path / "s") as engine:
        yield engine


@pytest.fixture
async def client(engine: ScriptedEngine) -> AsyncIterator[EngineClient]:
    """Connected; takes an engine for hung only after the patience of a test."""
    client = await EngineClient.connect(engine.path, PATIENCE_S)
    yield client
    await client.drain(0.0)


@pytest.fixture
async def impatient(engine: ScriptedEngine) -> AsyncIterator[EngineClient]:
    """Connected; takes an engine for hung after SILENT_S."""
    client = await EngineClient.connect(engine.path, SILENT_S)
    yield client
    await client.drain(0.0)


async def submit(client: EngineClient, engine: ScriptedEngine, request_id: str, **options: Any) -> DeltaStream:
    """Submit a request that the engine admits, once there is an engine."""
    await until(lambda: client.stats().is_alive)
    stream, _ = await asyncio.gather(client.submit(request_of(request_id, **options)), engine.admit())
    return stream


async def submit_unanswered(client: EngineClient, engine: ScriptedEngine, request_id: str) -> asyncio.Task[DeltaStream]:
    """Submit a request that the engine has received and not answered."""
    submission = asyncio.create_task(client.submit(request_of(request_id)))
    assert await engine.receive() == Submit(request_of(request_id))
    return submission


async def lose(client: EngineClient, engine: ScriptedEngine) -> None:
    """Kill the engine, and let the client notice."""
    await engine.die()
    await until(lambda: not client.stats().is_alive)
    while await engine.receive() is not None:
        pass


async def replace(client: EngineClient, engine: ScriptedEngine) -> None:
    """Kill the engine and start the next one."""
    await lose(client, engine)
    await engine.listen()


# ---- loss


async def test_request_that_had_begun_ends_as_lost(client: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(client, engine, "a")
    engine.say("a", 7)
    assert tokens_of(await stream.take()) == [7]
    await lose(client, engine)
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, FinishReason.LOST)]
    assert errors_of(deltas) == {LOST}


async def test_every_open_sample_is_ended_and_no_other(client: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(client, engine, "a", num_samples=3)
    engine.say("a", 7, reason=FinishReason.STOP)
    await stream.take()
    await lose(client, engine)
    assert finals_of(await read(stream)) == [(1, FinishReason.LOST), (2, FinishReason.LOST)]


async def test_request_that_had_not_begun_is_served_by_the_next_engine(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    stream = await submit(client, engine, "a")
    await replace(client, engine)
    assert await engine.admit() == Submit(request_of("a"))
    engine.say("a", 7, 8, reason=FinishReason.LENGTH)
    deltas = await read(stream)
    assert (tokens_of(deltas), finals_of(deltas)) == ([7, 8], [(0, FinishReason.LENGTH)])


async def test_request_without_an_answer_is_answered_by_the_next_engine(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    admitted = await submit_unanswered(client, engine, "a")
    refused = await submit_unanswered(client, engine, "b")
    await replace(client, engine)
    assert [await engine.receive() for _ in range(2)] == [Submit(request_of("a")), Submit(request_of("b"))]
    engine.send(Admitted("a"))
    engine.send(Refused("b", ErrorReport.of(ContextLengthExceeded("too long", param="max_tokens"))))
    engine.say("a", reason=FinishReason.STOP)
    assert finals_of(await read(await admitted)) == [(0, FinishReason.STOP)]
    with pytest.raises(ContextLengthExceeded) as caught:
        await refused
    assert (caught.value.message, caught.value.param) == ("too long", "max_tokens")


async def test_what_a_request_has_waited_counts_towards_its_deadline(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    await submit(client, engine, "a", timeout_s=50.0)
    await submit(client, engine, "b", timeout_s=0.01)
    await asyncio.sleep(0.05)
    await replace(client, engine)
    again = {}
    for _ in range(2):
        message = await engine.receive()
        assert isinstance(message, Submit)
        again[message.request.request_id] = message.request.timeout_s
    assert again["b"] == 0.0
    assert 40.0 < (again["a"] or 0) < 49.96


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (QueueFull("full", retry_after_s=3.0), FinishReason.LOST),
        (EngineDead("dead"), FinishReason.LOST),
        (InvalidValue("other model"), FinishReason.ERROR),
    ],
)
async def test_next_engine_may_refuse_what_the_last_one_had_admitted(
    client: EngineClient, engine: ScriptedEngine, refusal: QuireError, reason: FinishReason
) -> None:
    """Its caller is told to come again exactly where that may help."""
    stream = await submit(client, engine, "a")
    await replace(client, engine)
    await engine.receive()
    engine.send(Refused("a", ErrorReport.of(refusal)))
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, reason)]
    assert errors_of(deltas) == {refusal.message}


@pytest.mark.parametrize("has_begun", [False, True])
async def test_request_that_two_engines_died_under_is_poison(
    client: EngineClient, engine: ScriptedEngine, has_begun: bool
) -> None:
    stream = await submit(client, engine, "a")
    await replace(client, engine)
    await engine.admit()
    if has_begun:
        engine.say("a", 7)
        await stream.take()
    await replace(client, engine)
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, FinishReason.ERROR)]
    assert errors_of(deltas) == {POISON}
    fresh = await submit(client, engine, "b")  # nothing came between: "a" was not sent a third time
    engine.say("b", reason=FinishReason.STOP)
    assert finals_of(await read(fresh)) == [(0, FinishReason.STOP)]


async def test_poison_without_an_answer_raises_an_error_that_forbids_another_try(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    submission = await submit_unanswered(client, engine, "a")
    await replace(client, engine)
    await engine.receive()
    await lose(client, engine)
    with pytest.raises(EngineError) as caught:
        await submission
    assert (caught.value.message, caught.value.should_retry) == (POISON, False)


async def test_engine_that_never_said_hello_counts_as_nobodys_victim(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    """As one that was stopped: the kernel takes connections for it until it is killed."""
    stream = await submit(client, engine, "a")
    await lose(client, engine)
    engine.is_greeting = False
    await engine.listen()
    for _ in range(3):
        await until(lambda: bool(engine._writers))
        engine.hang_up()
        assert await engine.receive() is None
    engine.is_greeting = True
    await engine.admit()
    engine.say("a", 7, reason=FinishReason.STOP)
    assert finals_of(await read(stream)) == [(0, FinishReason.STOP)]


async def test_no_request_waits_for_ever_for_the_next_engine(
    client: EngineClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "REPLAY_WAIT_S", 0.2)
    stream = await submit(client, engine, "a")
    submission = await submit_unanswered(client, engine, "b")
    engine.is_greeting = False  # the next one never answers
    await lose(client, engine)
    deltas = await read(stream)
    assert (finals_of(deltas), errors_of(deltas)) == ([(0, FinishReason.LOST)], {LOST})
    with pytest.raises(EngineDead) as caught:
        await submission
    assert (caught.value.retry_after_s or 0) > 0


# ---- silence


async def test_silent_engine_is_left_within_the_time(
    impatient: EngineClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "REPLAY_WAIT_S", SILENT_S)
    begun = await submit(impatient, engine, "a")
    engine.say("a", 7)
    await begun.take()
    waiting = await submit(impatient, engine, "b")
    engine.is_greeting = False  # stopped: it still is connected to, but says nothing
    began_s = time.monotonic()
    results = await asyncio.gather(read(begun), read(waiting))
    assert time.monotonic() - began_s < SILENT_S + 2.0
    assert [finals_of(deltas) for deltas in results] == [[(0, FinishReason.LOST)]] * 2
    assert not impatient.stats().is_alive


async def test_mute_engine_is_tried_again(impatient: EngineClient, engine: ScriptedEngine) -> None:
    """A connection on which no hello comes is no reason to wait for ever."""
    engine.is_greeting = False
    engine.hang_up()
    await until(lambda: bool(engine._writers))
    engine.is_greeting = True
    assert [await engine.receive() for _ in range(2)] == [None, None]  # the greeted connection, then the mute one
    await submit(impatient, engine, "a")


async def test_engine_that_beats_is_not_silent(impatient: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(impatient, engine, "a")
    engine.say("a", 7)
    for _ in range(10):
        await asyncio.sleep(SILENT_S / 4)
        engine.beat()
    engine.say("a", 8, reason=FinishReason.STOP)
    assert tokens_of(await read(stream)) == [7, 8]


async def test_worker_that_stood_still_does_not_blame_the_engine(
    impatient: EngineClient, engine: ScriptedEngine
) -> None:
    stream = await submit(impatient, engine, "a")
    engine.say("a", 7)
    await stream.take()
    time.sleep(SILENT_S + 1.5)  # in the loop's own thread
    await asyncio.sleep(SILENT_S / 4)
    assert impatient.stats().is_alive
    engine.say("a", 8, reason=FinishReason.STOP)
    assert tokens_of(await read(stream)) == [8]


@pytest.mark.parametrize("noise", [b"\xff" * 8, b"\x00\x00\x00\x00", encode_frame(Alive()), encode_frame(Abort("a"))])
async def test_engine_that_speaks_another_language_is_left(
    client: EngineClient, engine: ScriptedEngine, noise: bytes
) -> None:
    stream = await submit(client, engine, "a")
    engine.say("a", 7)
    await stream.take()
    engine.write(noise)
    assert finals_of(await read(stream)) == [(0, FinishReason.LOST)]
    assert await engine.receive() is None
    assert (await submit(client, engine, "b")).request_id == "b"  # it has connected again


async def test_news_of_unknown_requests_is_dropped(client: EngineClient, engine: ScriptedEngine) -> None:
    engine.say("nobody", 7, reason=FinishReason.STOP)
    engine.send(Admitted("nobody"))
    engine.send(Refused("nobody", ErrorReport.of(InvalidValue("a"))))
    stream = await submit(client, engine, "a")
    engine.say("a", reason=FinishReason.STOP)
    assert finals_of(await read(stream)) == [(0, FinishReason.STOP)]


# ---- abort, cancel, readers


async def test_abort_is_the_engines_to_answer(client: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(client, engine, "a")
    client.abort("a")
    client.abort("nobody")
    await engine.expect_abort("a")
    assert not stream.is_closed
    engine.say("a", reason=FinishReason.ABORT)
    assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]


async def test_aborted_request_is_not_sent_again(client: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(client, engine, "a")
    client.abort("a")
    await replace(client, engine)
    assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]
    await submit(client, engine, "b")


async def test_abort_while_disconnected_ends_the_stream(client: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(client, engine, "a")
    await lose(client, engine)
    client.abort("a")
    assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]
    await engine.listen()
    await submit(client, engine, "b")


@pytest.mark.parametrize("is_connected", [True, False])
async def test_abort_before_the_answer_ends_the_submission(
    client: EngineClient, engine: ScriptedEngine, is_connected: bool
) -> None:
    submission = await submit_unanswered(client, engine, "a")
    if not is_connected:
        await lose(client, engine)
    client.abort("a")
    if is_connected:
        await lose(client, engine)
    stream = await asyncio.wait_for(submission, PATIENCE_S)
    assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]


async def test_submission_while_disconnected_is_refused_with_a_time(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    await lose(client, engine)
    with pytest.raises(EngineDead) as caught:
        await client.submit(request_of("a"))
    assert (caught.value.retry_after_s or 0) > 0
    assert caught.value.should_retry is True


async def test_cancelled_submission_is_aborted_and_its_late_answer_dropped(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    submission = await submit_unanswered(client, engine, "a")
    submission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submission
    await engine.expect_abort("a")
    engine.send(Admitted("a"))
    engine.say("a", 7, reason=FinishReason.ABORT)
    await submit(client, engine, "b")
    await client.drain(0.0)


async def test_submission_that_is_cancelled_while_disconnected_is_not_sent_again(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    submission = await submit_unanswered(client, engine, "a")
    await lose(client, engine)
    submission.cancel()
    await asyncio.gather(submission, return_exceptions=True)
    await engine.listen()
    await submit(client, engine, "b")


async def test_id_in_use_is_refused_without_disturbing_its_owner(client: EngineClient, engine: ScriptedEngine) -> None:
    stream = await submit(client, engine, "a")
    with pytest.raises(InvalidValue, match="'a' is in use"):
        await client.submit(request_of("a"))
    engine.say("a", reason=FinishReason.STOP)
    assert finals_of(await read(stream)) == [(0, FinishReason.STOP)]


async def test_request_too_large_for_a_frame_leaves_nothing_behind(
    client: EngineClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("contracts.frames.MAX_FRAME_BYTES", 10)
        with pytest.raises(ValueError, match="over the limit"):
            await client.submit(request_of("a"))
    await submit(client, engine, "a")


async def test_slow_reader_is_ended_and_disturbs_nobody(
    client: EngineClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_contract, "STALL_S", 0.05)
    lazy, busy = await submit(client, engine, "lazy"), await submit(client, engine, "busy")
    reading = asyncio.create_task(read(busy))
    for token in range(400):
        engine.say("lazy", token)
        engine.say("busy", token)
        await asyncio.sleep(0.001)
    await engine.expect_abort("lazy")
    engine.say("busy", reason=FinishReason.STOP)
    deltas = await read(lazy)
    assert (finals_of(deltas), errors_of(deltas)) == ([(0, FinishReason.ERROR)], {"the reader fell too far behind"})
    assert tokens_of(await reading) == list(range(400))


# ---- what it says of itself, and its end


async def test_info_and_stats_are_the_engines_words(client: EngineClient, engine: ScriptedEngine) -> None:
    assert client.info == HELLO.info
    later = msgspec.structs.replace(STATS, num_running=3)
    engine.beat(later)
    await until(lambda: client.stats() == later)


async def test_engine_that_calls_itself_dead_is_believed(client: EngineClient, engine: ScriptedEngine) -> None:
    engine.beat(msgspec.structs.replace(STATS, is_alive=False))
    await until(lambda: not client.stats().is_alive)


async def test_drain_waits_for_what_runs_and_closes_the_connection(
    client: EngineClient, engine: ScriptedEngine
) -> None:
    stream = await submit(client, engine, "a")
    drain = asyncio.create_task(client.drain(PATIENCE_S))
    await asyncio.sleep(0.05)
    assert not drain.done()
    engine.say("a", reason=FinishReason.STOP)
    await drain
    assert finals_of(await read(stream)) == [(0, FinishReason.STOP)]
    assert await engine.receive() is None


@pytest.mark.parametrize("is_connected", [True, False])
async def test_drain_ends_what_is_left_answered_or_not(
    client: EngineClient, engine: ScriptedEngine, is_connected: bool
) -> None:
    stream = await submit(client, engine, "a")
    submission = await submit_unanswered(client, engine, "b")
    if not is_connected:
        await lose(client, engine)
    async with asyncio.timeout(PATIENCE_S):
        await client.drain(0.01)
        results = [await read(stream), await read(await submission)]
    assert [finals_of(deltas) for deltas in results] == [[(0, FinishReason.ABORT)]] * 2


async def test_drain_before_the_hello_leaves_no_connection(engine: ScriptedEngine) -> None:
    engine.is_greeting = False
    connecting = asyncio.create_task(EngineClient.connect(engine.path, PATIENCE_S))
    await until(lambda: bool(engine._writers))
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert await engine.receive() is None
    assert [task.get_name() for task in asyncio.all_tasks() if "quire" in task.get_name()] == []


async def test_connecting_waits_for_the_engine_to_come(tmp_path: Path) -> None:
    connecting = asyncio.create_task(EngineClient.connect(tmp_path / "s", PATIENCE_S))
    await asyncio.sleep(0.1)
    assert not connecting.done()
    async with scripted_engine(tmp_path / "s"):
        client = await asyncio.wait_for(connecting, PATIENCE_S)
        assert client.stats() == STATS
        await client.drain(0.0)


# ---- an engine that leaves on purpose


async def test_engine_that_was_drained_is_not_taken_for_dead(engine: ScriptedEngine, client: EngineClient) -> None:
    """What it had not admitted is refused at once, so that it can be sent to another; nothing waits for a restart."""
    running = await submit(client, engine, "a")
    waiting = asyncio.create_task(client.submit(request_of("b")))
    await engine.receive()
    engine.say("a", 7, reason=FinishReason.LENGTH)
    engine.beat(msgspec.structs.replace(STATS, is_draining=True))
    await engine.die()
    began_s = time.monotonic()
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        await client.submit(request_of("c"))
    assert time.monotonic() - began_s < 1.0
    assert tokens_of(await read(running)) == [7]


async def test_engine_that_comes_back_after_a_drain_is_used_again(engine: ScriptedEngine, client: EngineClient) -> None:
    engine.beat(msgspec.structs.replace(STATS, is_draining=True))
    await until(lambda: client.stats().is_draining)
    await engine.die()
    assert await engine.receive() is None
    await engine.listen()
    await until(lambda: client.stats().is_alive and not client.stats().is_draining)
    await submit(client, engine, "a")


@pytest.mark.parametrize("num_turns", [0, 1, 2, 3])
async def test_drain_at_the_moment_of_the_loss_ends(engine: ScriptedEngine, num_turns: int) -> None:
    client = await EngineClient.connect(engine.path, PATIENCE_S)
    await engine.die()
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(num_turns)))
    await asyncio.wait_for(client.drain(0.0), 5.0)
