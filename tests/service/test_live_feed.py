"""The engine is looked at only while somebody watches, once for all who do, and the seldomer the more it costs."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import EngineDead
from contracts.settings import Settings
from service import live_feed
from service.app import create_app
from service.engine_provider import EngineProvider
from service.live_feed import LiveFeed, LiveFeeds, LiveLook, TooManyWatchers, ranges, run_lengths
from tests.fakes import FakeEngine, empty_look

PATIENCE_S = 10.0
ALIAS = "fake/model"


@pytest.fixture
async def provider(engine: FakeEngine) -> AsyncIterator[EngineProvider]:
    provider: EngineProvider = create_app(Settings(), engine).state.provider
    async with provider.run():
        await provider.wait_until_loaded()
        yield provider


@pytest.fixture
def feed(provider: EngineProvider, monkeypatch: pytest.MonkeyPatch) -> LiveFeed:
    monkeypatch.setattr(live_feed, "PERIOD_S", 0.01)
    monkeypatch.setattr(live_feed, "RETRY_S", 0.01)
    return LiveFeed(provider, ALIAS)


async def take(feed: LiveFeed, count: int) -> list[LiveLook]:
    looks: Any = feed.watch()
    async with aclosing(looks), asyncio.timeout(PATIENCE_S):
        return [await anext(looks) for _ in range(count)]


async def test_nobody_watching_means_no_look_at_all(feed: LiveFeed, engine: FakeEngine) -> None:
    await asyncio.sleep(0.05)
    assert engine.num_looks == 0


async def test_looks_come_until_the_watcher_leaves(feed: LiveFeed, engine: FakeEngine) -> None:
    assert len(await take(feed, 3)) == 3
    num_looks = engine.num_looks
    await asyncio.sleep(0.05)
    assert (engine.num_looks, feed.num_watchers) == (num_looks, 0)


async def test_many_watchers_cost_the_engine_what_one_does(feed: LiveFeed, engine: FakeEngine) -> None:
    await asyncio.gather(*(take(feed, 5) for _ in range(8)))
    assert engine.num_looks <= 6


async def test_dear_looks_are_seldom(feed: LiveFeed, engine: FakeEngine) -> None:
    engine.sight = msgspec.structs.replace(empty_look(), took_s=0.02)
    (look,) = await take(feed, 1)
    assert look.period_s == pytest.approx(0.02 / live_feed.MAX_SHARE)


async def test_dead_engine_is_asked_again(feed: LiveFeed, engine: FakeEngine) -> None:
    engine.sight = EngineDead("gone")
    watching = asyncio.create_task(take(feed, 1))
    while engine.num_looks < 2:
        await asyncio.sleep(0.005)
    engine.sight = empty_look()
    assert len(await watching) == 1


async def test_watchers_are_let_go_when_the_server_stops(feed: LiveFeed, provider: EngineProvider) -> None:
    looks: Any = feed.watch()
    async with aclosing(looks), asyncio.timeout(PATIENCE_S):
        await anext(looks)
        provider.begin_drain()
        assert [look async for look in looks][1:] == []
    assert len(await take_all(feed)) == 0


async def take_all(feed: LiveFeed) -> list[LiveLook]:
    async with asyncio.timeout(PATIENCE_S):
        return [look async for look in feed.watch()]


async def test_so_many_may_watch_and_no_more(provider: EngineProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "MAX_WATCHERS", 1)
    feeds = LiveFeeds(provider)
    looks: Any = feeds.feed(ALIAS).watch()
    async with aclosing(looks):
        await anext(looks)
        with pytest.raises(TooManyWatchers, match="1 pages watch"):
            feeds.feed(ALIAS)
    assert feeds.feed(ALIAS).num_watchers == 0


@given(st.lists(st.integers(0, 3) | st.just(65_535), max_size=60))
def test_run_lengths_are_the_cells_again(cells: list[int]) -> None:
    runs = run_lengths(array("H", cells).tobytes())
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    assert [cell for cell, length in pairs for _ in range(length)] == cells
    assert all(left[0] != right[0] for left, right in pairwise(pairs))


@given(st.sets(st.integers(0, 40)))
def test_ranges_are_the_numbers_again(numbers: set[int]) -> None:
    found = ranges(sorted(numbers))
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert [number for first, length in pairs for number in range(first, first + length)] == sorted(numbers)
