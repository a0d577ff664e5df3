"""What contracts.engine.Engine promises, asked of both that keep it: the engine in process and behind its socket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts import engine as engine_contract
from contracts.errors import (
    ContextLengthExceeded,
    EngineDead,
    InvalidValue,
    NoRoom,
    QueueFull,
    QuireError,
    ShuttingDown,
)
from contracts.frames import ErrorReport
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from tests.batching.engine_rig import (
    KINDS,
    NUM_BLOCKS,
    PATIENCE_S,
    Rig,
    errors_of,
    finals_of,
    over_socket,
    read,
    rig_of,
    tokens_of,
    until,
)
from tests.batching.real_engine import request_of


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_of(request.param, tmp_path / "s") as rig:
        yield rig


def late_request(timeout_s: float) -> GenerationRequest:
    sampling = request_of("late", [1], max_tokens=50).sampling
    return GenerationRequest(request_id="late", prompt_token_ids=[1, 2, 3], sampling=sampling, timeout_s=timeout_s)


async def test_info_is_what_the_engine_serves(rig: Rig) -> None:
    assert rig.front.info == rig.engine.info


async def test_stream_brings_all_tokens_and_one_final_delta(rig: Rig) -> None:
    deltas = await read(await rig.submit("a"))
    assert tokens_of(deltas) == [3, 4, 5, 6]
    assert finals_of(deltas) == [(0, FinishReason.LENGTH)]
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert deltas[-1].times is not None
    await rig.until_nothing_is_left()


async def test_finished_stream_gives_nothing_more(rig: Rig) -> None:
    stream = await rig.submit("a")
    await read(stream)
    assert stream.is_finished
    assert await stream.take() == []


async def test_each_sample_ends_once(rig: Rig) -> None:
    deltas = await read(await rig.submit("a", num_samples=3))
    assert finals_of(deltas) == [(index, FinishReason.LENGTH) for index in range(3)]
    assert [tokens_of(deltas, index) for index in range(3)] == [[3, 4, 5, 6]] * 3
    await rig.until_nothing_is_left()


async def test_deltas_of_many_streams_come_in_order(rig: Rig) -> None:
    streams = [await rig.submit(str(index), max_tokens=10 + index) for index in range(12)]
    results = await asyncio.gather(*(read(stream) for stream in streams))
    assert [tokens_of(deltas) for deltas in results] == [list(range(3, 13 + index)) for index in range(12)]
    assert [len(finals_of(deltas)) for deltas in results] == [1] * 12
    assert all(deltas[-1].finish_reason is FinishReason.LENGTH for deltas in results)


async def test_engine_wakes_again_after_it_was_idle(rig: Rig) -> None:
    await read(await rig.submit("a"))
    await until(lambda: not rig.scheduler.has_work)
    assert tokens_of(await read(await rig.submit("b"))) == [3, 4, 5, 6]


async def test_id_may_be_used_again_only_after_its_end(rig: Rig) -> None:
    first = await rig.submit_and_hold("a")
    with pytest.raises(InvalidValue):
        await rig.submit("a")
    rig.runner.gate.set()
    assert finals_of(await read(first)) == [(0, FinishReason.LENGTH)]
    assert finals_of(await read(await rig.submit("a"))) == [(0, FinishReason.LENGTH)]


async def test_id_may_be_used_again_at_once_after_an_abort(rig: Rig) -> None:
    for _ in range(20):
        stream = await rig.submit("a", max_tokens=50)
        rig.front.abort("a")
        assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]
    assert tokens_of(await read(await rig.submit("a"))) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "kind", "param"),
    [
        ({"max_tokens": 10_000}, ContextLengthExceeded, "max_tokens"),
        ({"max_tokens": 0}, InvalidValue, "max_tokens"),
        ({"num_samples": 0}, InvalidValue, "n"),
    ],
)
async def test_refused_request_leaves_no_stream(
    rig: Rig, options: dict[str, Any], kind: type[QuireError], param: str
) -> None:
    with pytest.raises(kind) as caught:
        await rig.submit("a", **options)
    assert caught.value.param == param
    rig.check_nothing_is_left()
    assert tokens_of(await read(await rig.submit("a"))) == [3, 4, 5, 6]


@pytest.mark.parametrize("prompt", [[], [128], [-1]])
async def test_prompt_that_is_none_is_refused(rig: Rig, prompt: list[int]) -> None:
    with pytest.raises(InvalidValue) as caught:
        await rig.front.submit(request_of("a", prompt))
    assert caught.value.param == "prompt"


async def test_refusal_says_the_same_in_process_and_over_the_socket(tmp_path: Path) -> None:
    request = request_of("a", [1, 2, 3], max_tokens=10_000)
    async with over_socket(tmp_path / "s") as rig:
        with pytest.raises(QuireError) as inside:
            await rig.engine.submit(request)
        with pytest.raises(QuireError) as outside:
            await rig.front.submit(request)
    assert ErrorReport.of(outside.value) == ErrorReport.of(inside.value)


async def test_full_queue_refuses_and_recovers(rig: Rig) -> None:
    streams = [await rig.submit_and_hold("first")]
    streams += [await rig.submit(f"waiting-{index}") for index in range(20)]
    with pytest.raises(QueueFull) as caught:
        await rig.submit("one too many")
    assert (caught.value.retry_after_s or 0) > 0
    rig.runner.gate.set()
    results = [await read(stream) for stream in streams]
    assert [finals_of(deltas) for deltas in results] == [[(0, FinishReason.LENGTH)]] * 21


async def test_limit_is_exact_for_requests_that_come_at_once(rig: Rig) -> None:
    first = await rig.submit_and_hold("first", max_tokens=1)
    outcomes = await asyncio.gather(*(rig.submit(str(index)) for index in range(40)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)] == [NoRoom] * 20
    rig.runner.gate.set()
    admitted = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    results = await asyncio.gather(*(read(stream) for stream in [first, *admitted]))
    assert [len(finals_of(deltas)) for deltas in results] == [1] * 21


async def test_samples_are_admitted_all_or_none(rig: Rig) -> None:
    await rig.submit_and_hold("first")
    streams = [await rig.submit(str(index), num_samples=3) for index in range(6)]
    with pytest.raises(QueueFull):
        await rig.submit("needs three, has two", num_samples=3)
    assert rig.scheduler.num_waiting == 18
    rig.runner.gate.set()
    assert [len(finals_of(await read(stream))) for stream in streams] == [3] * 6


async def test_abort_ends_the_stream_before_the_step_does(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a", max_tokens=50)
    rig.front.abort("a")
    assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]
    assert rig.runner.num_steps == 0


async def test_abort_of_a_waiting_request_never_runs_it(rig: Rig) -> None:
    first = await rig.submit_and_hold("first")
    second = await rig.submit("second")
    rig.front.abort("second")
    assert finals_of(await read(second)) == [(0, FinishReason.ABORT)]
    rig.runner.gate.set()
    await read(first)
    assert {seq_id for seq_ids in rig.runner.seq_ids for seq_id in seq_ids} == {1}


@pytest.mark.parametrize("num_held_steps", [0, 1, 2])
async def test_abort_ends_every_sample(rig: Rig, num_held_steps: int) -> None:
    stream = await rig.submit_and_hold("a", num_samples=3, max_tokens=50)
    for _ in range(num_held_steps):
        rig.runner.gate.set()
        await rig.shut()
    rig.front.abort("a")
    assert finals_of(await read(stream)) == [(index, FinishReason.ABORT) for index in range(3)]
    rig.runner.gate.set()
    await rig.until_nothing_is_left()


async def test_abort_twice_after_the_end_or_of_nobody_changes_nothing(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a")
    rig.front.abort("a")
    rig.front.abort("a")
    rig.front.abort("nobody")
    rig.runner.gate.set()
    assert len(await read(stream)) == 1
    done = await rig.submit("b")
    deltas = await read(done)
    rig.front.abort("b")
    assert finals_of(deltas) == [(0, FinishReason.LENGTH)]
    assert await done.take() == []


async def abort_at_random(rig: Rig, draw: random.Random, index: int) -> list[GenerationDelta]:
    """One client: submits at some time, goes away at some other, reads what is left."""
    num_samples = draw.choice([1, 1, 2, 3])
    num_yields, num_takes = draw.randrange(0, 40), draw.randrange(0, 4)
    prompt = [draw.randrange(128) for _ in range(draw.randrange(1, 40))]
    request = request_of(str(index), prompt, num_samples=num_samples, max_tokens=draw.randrange(1, 30))
    stream = await submit_patiently(rig, request)
    deltas: list[GenerationDelta] = []
    for _ in range(num_takes):
        deltas += await stream.take()
    for _ in range(num_yields):
        await asyncio.sleep(0)
    rig.front.abort(str(index))
    deltas += await read(stream)
    assert [sample for sample, _ in finals_of(deltas)] == list(range(num_samples))
    return deltas


async def submit_patiently(rig: Rig, request: GenerationRequest) -> engine_contract.DeltaStream:
    """Try again while the queue is full."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await rig.front.submit(request)
            except QueueFull:
                await asyncio.sleep(0.01)


async def test_200_aborts_at_random_moments_leave_nothing(rig: Rig) -> None:
    draw = random.Random(3)
    clients = [abort_at_random(rig, random.Random(draw.random()), index) for index in range(200)]
    results = await asyncio.gather(*clients)
    await rig.until_nothing_is_left()
    reasons = {reason for deltas in results for _, reason in finals_of(deltas)}
    assert reasons == {FinishReason.ABORT, FinishReason.LENGTH}


async def test_cancelled_submissions_leave_nothing(rig: Rig) -> None:
    submissions = [asyncio.create_task(rig.submit(str(index), max_tokens=50)) for index in range(15)]
    await asyncio.sleep(0)
    for submission in submissions:
        submission.cancel()
    outcomes = await asyncio.gather(*submissions, return_exceptions=True)
    for index, outcome in enumerate(outcomes):
        if not isinstance(outcome, BaseException):  # in process, submission never waits
            rig.front.abort(str(index))
    await rig.until_nothing_is_left()


async def test_deadline_ends_a_request_at_a_step_boundary(rig: Rig) -> None:
    rig.runner.gate.clear()
    stream = await rig.front.submit(late_request(5.0))
    assert await asyncio.to_thread(rig.runner.entered.wait, PATIENCE_S)
    rig.now_s = 5.0
    rig.runner.gate.set()
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, FinishReason.DEADLINE)]
    assert tokens_of(deltas) == [3]
    await rig.until_nothing_is_left()


async def test_stats_do_not_wait_for_the_step_in_flight(rig: Rig) -> None:
    await rig.submit_and_hold("a")
    await until(lambda: rig.front.stats().num_running == 1)
    stats = rig.front.stats()
    assert (stats.num_requests, stats.is_alive, stats.is_draining) == (1, True, False)
    assert stats.num_steps == 1 + rig.num_ahead
    assert stats.num_free_blocks == NUM_BLOCKS - 1


async def test_stats_show_the_end_of_the_last_request_soon(rig: Rig) -> None:
    await read(await rig.submit("a"))
    await rig.until_nothing_is_left()
    await until(lambda: rig.front.stats() == rig.engine.stats())
    assert rig.front.stats().num_finished == 1


async def test_reader_that_is_too_far_behind_is_ended_and_disturbs_nobody(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_contract, "MAX_UNREAD_DELTAS", 8)
    monkeypatch.setattr(engine_contract, "STALL_S", 0.0)
    lazy = await rig.submit("lazy", max_tokens=100)
    busy = asyncio.create_task(read_one_by_one(rig))
    await until(lambda: lazy.is_closed)
    deltas = await read(lazy)
    assert finals_of(deltas) == [(0, FinishReason.ERROR)]
    assert errors_of(deltas) == {"the reader fell too far behind"}
    assert len(deltas) <= 8 + 2
    assert await busy == list(range(3, 103))
    await rig.until_nothing_is_left()


async def read_one_by_one(rig: Rig) -> list[int]:
    """The tokens of one long request whose reader takes everything at once."""
    return tokens_of(await read(await rig.submit("busy", max_tokens=100)))


async def test_drain_lets_the_running_end_and_refuses_the_new(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a")
    drain = asyncio.create_task(rig.front.drain(PATIENCE_S))
    await until(lambda: rig.front.stats().is_draining)
    with pytest.raises(ShuttingDown) as caught:
        await rig.submit("b")
    assert (caught.value.retry_after_s or 0) > 0
    rig.runner.gate.set()
    assert finals_of(await read(stream)) == [(0, FinishReason.LENGTH)]
    await drain


async def test_drain_aborts_what_is_left_at_its_deadline(rig: Rig) -> None:
    streams = [await rig.submit_and_hold("a", max_tokens=50), await rig.submit("b", num_samples=2)]
    drain = asyncio.create_task(rig.front.drain(0.01))
    results = [await read(stream) for stream in streams]
    rig.runner.gate.set()
    await drain
    assert [finals_of(deltas) for deltas in results] == [
        [(0, FinishReason.ABORT)],
        [(0, FinishReason.ABORT), (1, FinishReason.ABORT)],
    ]
    await until(lambda: not rig.scheduler.has_work)


async def test_drain_of_an_idle_engine_ends_at_once_and_may_be_repeated(rig: Rig) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await rig.front.drain(1000.0)
        await rig.front.drain(1000.0)
    assert rig.front.stats().is_draining
    with pytest.raises(ShuttingDown):
        await rig.submit("a")


@pytest.mark.parametrize("verb", ["schedule", "commit", "expire"])
async def test_death_of_the_loop_ends_every_stream_with_an_error(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    streams = [await rig.submit_and_hold("a", max_tokens=50), await rig.submit("b", num_samples=2)]

    def broken(*_: object) -> None:
        raise RuntimeError("a bug in the scheduler with a secret in its text")

    monkeypatch.setattr(rig.scheduler, verb, broken)
    rig.runner.gate.set()
    results = [await read(stream) for stream in streams]
    assert [finals_of(deltas) for deltas in results] == [
        [(0, FinishReason.LOST)],
        [(0, FinishReason.LOST), (1, FinishReason.LOST)],
    ]
    assert errors_of(results[0] + results[1]) == {"the engine stopped: RuntimeError"}
    await until(lambda: not rig.front.stats().is_alive)
    with pytest.raises(EngineDead):
        await rig.submit("c")
    rig.front.abort("a")
    async with asyncio.timeout(PATIENCE_S):
        await rig.front.drain(1000.0)
    assert rig.front.stats().is_draining
