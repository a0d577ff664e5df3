"""What a worker asks beside its own requests is answered once, whatever becomes of the engine or of who asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import EngineDead, EventsGone
from contracts.followed import EventSlice
from contracts.frames import Abort, Cancel, ErrorReport, Follow, Followed, Unfollow
from contracts.generation import FinishReason, GenerationDelta
from service.engine_client import EngineClient
from tests.batching.engine_rig import finals_of, read, until
from tests.service.scripted_engine import PATIENCE_S, ScriptedEngine, scripted_engine
from tests.service.test_engine_client import lose, submit


def token(token_id: int) -> GenerationDelta:
    return GenerationDelta(request_id="a", sample_index=0, token_ids=[token_id])


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(tmp_path / "s") as engine:
        yield engine


@pytest.fixture
async def client(engine: ScriptedEngine) -> AsyncIterator[EngineClient]:
    client = await EngineClient.connect(engine.path, PATIENCE_S)
    yield client
    await client.drain(0.0)


@pytest.fixture
async def followers(client: EngineClient) -> AsyncIterator[EngineClient]:
    yield client
    assert not client._questions.has_followers
    assert client._questions._answers == {}


async def test_each_part_is_asked_for_when_the_last_was_taken(followers: EngineClient, engine: ScriptedEngine) -> None:
    opening = asyncio.create_task(followers.follow("a", "mine"))
    assert await engine.receive() == Follow(1, "a", "mine", 0, False)
    engine.send(Followed(1, EventSlice([token(7)], is_over=False)))
    stream = await opening
    assert await stream.take() == [token(7)]
    taking = asyncio.create_task(stream.take())
    assert await engine.receive() == Follow(2, "a", "mine", 1, True)
    engine.send(Followed(2, EventSlice([token(8), token(9)], is_over=True)))
    assert await taking == [token(8), token(9)]
    assert await stream.take() == []
    stream.close()


async def test_follower_that_is_cancelled_says_so(followers: EngineClient, engine: ScriptedEngine) -> None:
    opening = asyncio.create_task(followers.follow("a", None))
    assert isinstance(await engine.receive(), Follow)
    opening.cancel()
    assert await engine.receive() == Unfollow(1)
    engine.send(Followed(1, EventSlice([], is_over=True)))  # too late for anybody
    await asyncio.gather(opening, return_exceptions=True)


async def test_refusal_arrives_as_what_it_is(followers: EngineClient, engine: ScriptedEngine) -> None:
    opening = asyncio.create_task(followers.follow("a", None))
    await engine.receive()
    engine.send(Followed(1, None, ErrorReport.of(EventsGone("gone"))))
    with pytest.raises(EventsGone):
        await opening


async def test_lost_engine_answers_every_follower(followers: EngineClient, engine: ScriptedEngine) -> None:
    openings = [asyncio.create_task(followers.follow(name, None)) for name in "abc"]
    for _ in openings:
        await engine.receive()
    await lose(followers, engine)
    outcomes = await asyncio.gather(*openings, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineDead] * 3
    with pytest.raises(EngineDead):
        await followers.follow("a", None)


async def test_follower_and_submitter_of_one_worker_are_not_confused(
    followers: EngineClient,
    engine: ScriptedEngine,
) -> None:
    submitted = await submit(followers, engine, "a")
    opening = asyncio.create_task(followers.follow("a", None))
    assert isinstance(await engine.receive(), Follow)
    engine.say("a", 1)
    engine.send(Followed(1, EventSlice([token(1), token(2)], is_over=False)))
    stream = await opening
    engine.say("a", 2, reason=FinishReason.STOP)
    assert await stream.take() == [token(1), token(2)]
    stream.close()
    assert [delta.token_ids for delta in await read(submitted)] == [[1], [2]]


async def test_cancel_goes_to_the_engine_whoever_submitted(followers: EngineClient, engine: ScriptedEngine) -> None:
    followers.cancel("anybodys", "mine")
    assert await engine.receive() == Cancel("anybodys", "mine", FinishReason.CANCELLED)
    stream = await submit(followers, engine, "a")
    followers.abort("a", FinishReason.STOP)
    assert await engine.receive() == Abort("a", FinishReason.STOP)
    engine.say("a", reason=FinishReason.STOP)
    assert finals_of(await read(stream)) == [(0, FinishReason.STOP)]


async def test_cancel_without_an_engine_is_nobodys_to_hear(followers: EngineClient, engine: ScriptedEngine) -> None:
    await lose(followers, engine)
    followers.cancel("a", None)
    await engine.listen()
    await until(lambda: followers.stats().is_alive)


async def test_drain_waits_for_followers(client: EngineClient, engine: ScriptedEngine) -> None:
    opening = asyncio.create_task(client.follow("a", None))
    await engine.receive()
    engine.send(Followed(1, EventSlice([token(1)], is_over=True)))
    stream = await opening
    drain = asyncio.create_task(client.drain(PATIENCE_S))
    await asyncio.sleep(0.05)
    assert not drain.done()
    stream.close()
    await asyncio.wait_for(drain, PATIENCE_S)
