"""What contracts.engine.Engine promises of following, cancelling and detaching: in process and over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from batching import event_log
from contracts import engine as engine_contract
from contracts import followed
from contracts.engine import Engine
from contracts.errors import EngineDead, EventsGone, RequestNotFound, ShuttingDown
from contracts.followed import FollowedStream
from contracts.generation import FinishReason, GenerationDelta, Tenant
from contracts.records import RecordQuery
from tests.batching.engine_rig import (
    KINDS,
    PATIENCE_S,
    Rig,
    connected,
    errors_of,
    finals_of,
    in_process,
    listening,
    over_socket,
    read,
    rig_of,
    tokens_of,
    until,
)
from tests.batching.real_engine import request_of

LONG = 100
OWNED = Tenant(name="mine")


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_of(request.param, tmp_path / "s") as rig:
        yield rig


@pytest.fixture
async def two_workers(tmp_path: Path) -> AsyncIterator[tuple[Rig, Engine]]:
    """The rig's front is one worker; the other comes with it."""
    async with over_socket(tmp_path / "s") as rig, connected(tmp_path / "s") as other:
        yield rig, other


async def read_followed(stream: FollowedStream) -> list[GenerationDelta]:
    deltas: list[GenerationDelta] = []
    async with asyncio.timeout(PATIENCE_S):
        while taken := await stream.take():
            deltas += taken
    stream.close()
    return deltas


def without_records(deltas: list[GenerationDelta]) -> list[GenerationDelta]:
    return [msgspec.structs.replace(delta, record=None) for delta in deltas]


async def submit_detached(front: Engine, request_id: str, max_tokens: int = LONG) -> engine_contract.DeltaStream:
    request = request_of(request_id, [1, 2, 3], max_tokens=max_tokens)
    return await front.submit(msgspec.structs.replace(request, is_detached=True))


# ---- following


async def test_follower_of_an_ended_request_reads_the_same_deltas(rig: Rig) -> None:
    deltas = await read(await rig.submit("a", num_samples=3, max_tokens=20))
    assert await read_followed(await rig.front.follow("a", "")) == without_records(deltas)


@pytest.mark.parametrize("num_held_steps", [0, 1, 5])
async def test_follower_of_a_live_request_reads_all_of_it(rig: Rig, num_held_steps: int) -> None:
    stream = await rig.submit_and_hold("a", max_tokens=20)
    for _ in range(num_held_steps):
        rig.runner.gate.set()
        await rig.shut()
    following = asyncio.create_task(read_followed(await rig.front.follow("a", "")))
    await asyncio.sleep(0.02)
    rig.runner.gate.set()
    assert await following == without_records(await read(stream))


async def test_waiting_request_can_be_followed(rig: Rig) -> None:
    await rig.submit_and_hold("first")
    stream = await rig.submit("second")
    following = asyncio.create_task(read_followed(await rig.front.follow("second", "")))
    await asyncio.sleep(0.02)
    assert not following.done()
    rig.runner.gate.set()
    assert await following == without_records(await read(stream))


async def test_many_followers_disturb_neither_each_other_nor_the_reader(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MAX_SLICE_DELTAS", 7)
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    followers = [asyncio.create_task(read_followed(await rig.front.follow("a", ""))) for _ in range(20)]
    rig.runner.gate.set()
    expected = without_records(await read(stream))
    assert [await follower for follower in followers] == [expected] * 20
    await rig.until_nothing_is_left()


async def test_each_part_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_SLICE_DELTAS", 7)
    await read(await rig.submit("a", max_tokens=20))
    stream = await rig.front.follow("a", "")
    assert [len(await stream.take()) for _ in range(4)] == [7, 7, 6, 0]
    assert await stream.take() == []
    stream.close()
    stream.close()
    assert followed.MAX_SLICE_DELTAS == 256


@pytest.mark.parametrize(("request_id", "tenant"), [("nobody", ""), ("nobody", None), ("a", "another"), ("a", "")])
async def test_what_is_not_the_callers_is_not_found(rig: Rig, request_id: str, tenant: str | None) -> None:
    stream = await rig.submit("a", OWNED)
    with pytest.raises(RequestNotFound):
        await rig.front.follow(request_id, tenant)
    assert finals_of(await read(stream)) == [(0, FinishReason.LENGTH)]


@pytest.mark.parametrize("tenant", ["mine", None])
async def test_owner_and_administrator_find_it(rig: Rig, tenant: str | None) -> None:
    await read(await rig.submit("a", OWNED))
    assert len(await read_followed(await rig.front.follow("a", tenant))) == 4


async def test_events_that_were_given_up_are_gone_for_old_and_new_followers(rig: Rig) -> None:
    await rig.submit_and_hold("a", max_tokens=LONG)
    old = await rig.front.follow("a", "")
    reading = asyncio.create_task(old.take())
    await asyncio.sleep(0.02)
    rig.engine._book.events.forget("a")
    with pytest.raises(EventsGone):
        await rig.front.follow("a", "")
    rig.runner.gate.set()
    with pytest.raises(EventsGone):
        await reading
    old.close()


async def test_follower_hears_how_a_request_ended(rig: Rig) -> None:
    await rig.submit_and_hold("a", max_tokens=LONG)
    following = asyncio.create_task(read_followed(await rig.front.follow("a", "")))
    rig.front.abort("a")
    assert finals_of(await following) == [(0, FinishReason.ABORT)]
    rig.runner.gate.set()


async def test_follower_that_goes_leaves_nothing_behind(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    for _ in range(50):
        follower = await rig.front.follow("a", "")
        reading = asyncio.create_task(follower.take())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        follower.close()
    await until(lambda: not rig.engine._followers)
    rig.runner.gate.set()
    assert len(await read(stream)) == LONG


async def test_follower_that_does_not_read_costs_nobody_anything(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_contract, "MAX_UNREAD_DELTAS", 8)
    monkeypatch.setattr(engine_contract, "STALL_S", 0.0)
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    lazy = await rig.front.follow("a", "")
    rig.runner.gate.set()
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, FinishReason.LENGTH)]
    assert await read_followed(lazy) == without_records(deltas)


async def test_death_of_the_loop_ends_followers_with_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.submit_and_hold("a", max_tokens=LONG)
    follower = await rig.front.follow("a", "")
    reading = asyncio.create_task(follower.take())
    await asyncio.sleep(0.02)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(rig.scheduler, "commit", broken)
    rig.runner.gate.set()
    with pytest.raises(EngineDead):
        await reading
    with pytest.raises(EngineDead):
        await rig.front.follow("a", "")
    follower.close()


async def test_followers_in_every_worker_read_the_same(two_workers: tuple[Rig, Engine]) -> None:
    rig, other = two_workers
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    following = [asyncio.create_task(read_followed(await front.follow("a", ""))) for front in (rig.front, other)]
    rig.runner.gate.set()
    expected = without_records(await read(stream))
    assert [await follower for follower in following] == [expected] * 2


async def test_drain_of_a_worker_waits_for_those_who_follow(two_workers: tuple[Rig, Engine]) -> None:
    rig, other = two_workers
    await rig.submit_and_hold("a", max_tokens=LONG)
    following = asyncio.create_task(read_followed(await other.follow("a", "")))
    drain = asyncio.create_task(other.drain(PATIENCE_S))
    await asyncio.sleep(0.05)
    assert not drain.done()
    rig.runner.gate.set()
    assert len(await following) == LONG
    await drain


async def test_drain_that_takes_too_long_ends_those_who_follow(two_workers: tuple[Rig, Engine]) -> None:
    rig, other = two_workers
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    follower = await other.follow("a", "")
    reading = asyncio.create_task(follower.take())
    await other.drain(0.01)
    with pytest.raises(ShuttingDown):
        await reading
    rig.runner.gate.set()
    assert len(await read(stream)) == LONG


# ---- cancelling


async def test_cancel_ends_a_running_request_and_its_record_says_so(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a", num_samples=2, max_tokens=LONG)
    rig.front.cancel("a", "")
    (record,) = await rig.front.records(RecordQuery(any_id="a"))
    assert [sample.finish_reason for sample in record.samples] == [FinishReason.CANCELLED] * 2
    assert finals_of(await read(stream)) == [(0, FinishReason.CANCELLED), (1, FinishReason.CANCELLED)]
    rig.runner.gate.set()
    await rig.until_nothing_is_left()
    assert rig.runner.num_steps == 1 + rig.num_ahead
    assert rig.engine.stats().num_aborted == 2


async def test_cancelled_request_that_waited_never_runs(rig: Rig) -> None:
    first, second = await rig.submit_and_hold("first"), await rig.submit("second")
    rig.front.cancel("second", None)
    assert finals_of(await read(second)) == [(0, FinishReason.CANCELLED)]
    rig.runner.gate.set()
    await read(first)
    assert {seq_id for seq_ids in rig.runner.seq_ids for seq_id in seq_ids} == {1}


@pytest.mark.parametrize(("request_id", "tenant"), [("nobody", None), ("a", "another"), ("a", "")])
async def test_cancel_of_what_is_not_the_callers_changes_nothing(rig: Rig, request_id: str, tenant: str | None) -> None:
    stream = await rig.submit("a", OWNED)
    rig.front.cancel(request_id, tenant)
    assert finals_of(await read(stream)) == [(0, FinishReason.LENGTH)]


async def test_cancel_after_the_end_changes_nothing(rig: Rig) -> None:
    await read(await rig.submit("a"))
    rig.front.cancel("a", "")
    (record,) = await rig.front.records(RecordQuery(any_id="a"))
    assert record.samples[0].finish_reason is FinishReason.LENGTH


async def test_any_worker_cancels(two_workers: tuple[Rig, Engine]) -> None:
    rig, other = two_workers
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    other.cancel("a", "")
    assert finals_of(await read(stream)) == [(0, FinishReason.CANCELLED)]
    rig.runner.gate.set()
    await rig.until_nothing_is_left()


async def test_text_that_is_complete_is_recorded_as_such(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a", max_tokens=LONG)
    rig.front.abort("a", FinishReason.STOP)
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, FinishReason.STOP)]
    assert not deltas[-1].ended_by_token
    stats = rig.engine.stats()
    assert (stats.num_finished, stats.num_aborted) == (1, 0)
    rig.runner.gate.set()


# ---- detached


async def test_detached_request_survives_a_reader_that_does_not_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_contract, "MAX_UNREAD_DELTAS", 8)
    monkeypatch.setattr(engine_contract, "STALL_S", 0.0)
    lazy = await submit_detached(rig.front, "a")
    await until(lambda: lazy.is_closed)
    assert errors_of(await read(lazy)) == {"the reader fell too far behind"}
    assert tokens_of(await read_followed(await rig.front.follow("a", ""))) == list(range(3, 103))
    await rig.until_nothing_is_left()


async def test_detached_requests_outlive_their_worker_and_others_do_not(tmp_path: Path) -> None:
    async with in_process() as rig, listening(rig, tmp_path / "s"), connected(tmp_path / "s") as other:
        rig.runner.gate.clear()
        async with connected(tmp_path / "s") as gone:
            await submit_detached(gone, "kept")
            await gone.submit(request_of("attached", [1, 2, 3], max_tokens=LONG))
        await until(lambda: rig.engine.stats().num_aborted == 1)
        following = asyncio.create_task(read_followed(await other.follow("kept", "")))
        rig.runner.gate.set()
        assert tokens_of(await following) == list(range(3, 103))
        assert finals_of(await read_followed(await other.follow("attached", ""))) == [(0, FinishReason.ABORT)]
        await rig.until_nothing_is_left()


async def test_drain_of_the_engine_ends_detached_requests_too(tmp_path: Path) -> None:
    async with in_process() as rig, listening(rig, tmp_path / "s"):
        rig.runner.gate.clear()
        async with connected(tmp_path / "s") as gone:
            await submit_detached(gone, "kept")
        drain = asyncio.create_task(rig.engine.drain(0.01))
        await until(lambda: rig.engine.stats().num_aborted == 1)
        rig.runner.gate.set()
        await drain


async def test_200_abandoned_requests_leave_nothing(tmp_path: Path) -> None:
    async with in_process() as rig, listening(rig, tmp_path / "s"), connected(tmp_path / "s") as other:
        for round_number in range(10):
            rig.runner.gate.clear()
            async with connected(tmp_path / "s") as gone:
                for number in range(20):
                    await submit_detached(gone, f"{round_number}-{number}", max_tokens=1 + number)
            rig.runner.gate.set()
            await rig.until_nothing_is_left()
        assert rig.engine.stats().num_finished == 200
        assert not rig.engine._sinks
        assert len(await read_followed(await other.follow("9-19", ""))) == 20
