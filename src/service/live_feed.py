"""Asks the engines for looks while somebody watches, and gives each look to all who do. Knows no HTTP.

However many watch, a worker asks each engine once a period; and it asks the seldomer the more a look costs, so that
all looks together stay below MAX_SHARE of the engine's time.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Iterable
from itertools import groupby

import msgspec

from contracts.engine import EngineInfo
from contracts.errors import OverloadError, QuireError
from contracts.live import EngineLook
from service.engine_provider import ModelProvider

PERIOD_S = 0.25
MAX_SHARE = 0.01
"""Of the engine's loop, for all looks of one worker."""
MAX_WATCHERS = 32
"""Of one worker."""
RETRY_S = 0.5


class TooManyWatchers(OverloadError):
    """This worker shows the live view to as many as it can."""

    code = "too_many_watchers"


class LiveLook(msgspec.Struct, frozen=True, kw_only=True):
    """A look as all who watch get it; what one of them may not see is left out later."""

    look: EngineLook
    info: EngineInfo
    runs: list[int]
    shared: list[int]
    period_s: float


class LiveFeed:
    """The looks at one model. Owner: LiveFeeds. It asks from the first watcher's coming to the last one's leaving."""

    def __init__(self, provider: ModelProvider, alias: str) -> None:
        self._provider = provider
        self._alias = alias
        self._watchers: set[asyncio.Queue[LiveLook | None]] = set()
        self._asking: asyncio.Task[None] | None = None

    @property
    def num_watchers(self) -> int:
        return len(self._watchers)

    async def watch(self) -> AsyncIterator[LiveLook]:
        """Every look from now on, but for those that come while the caller is busy with an earlier one; ends when the
        model is not loaded any longer, or the server is about to stop."""
        latest: asyncio.Queue[LiveLook | None] = asyncio.Queue(maxsize=1)
        self._watchers.add(latest)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="quire-live")
        try:
            while (look := await latest.get()) is not None:
                yield look
        finally:
            self._watchers.discard(latest)
            if not self._watchers and self._asking is not None:
                self._asking.cancel()
                self._asking = None

    async def _ask(self) -> None:
        while self._provider.status != "draining":
            serving = self._provider.seen(self._alias)
            if serving is None:
                break
            try:
                look = await serving.engine.look()
            except QuireError:  # its engine is gone: another one may come, or the server stops
                await asyncio.sleep(RETRY_S)
                continue
            pause_s = max(PERIOD_S, look.took_s / MAX_SHARE)
            self._tell(
                LiveLook(
                    look=look,
                    info=serving.engine.info,
                    runs=run_lengths(look.cells),
                    shared=ranges(look.shared),
                    period_s=pause_s,
                )
            )
            await asyncio.sleep(pause_s)
        self._asking = None
        self._tell(None)

    def _tell(self, look: LiveLook | None) -> None:
        for latest in self._watchers:
            if latest.full():
                latest.get_nowait()
            latest.put_nowait(look)


class LiveFeeds:
    """The feed of every model. Owner: the application; used in its event loop."""

    def __init__(self, provider: ModelProvider) -> None:
        self._provider = provider
        self._feeds: dict[str, LiveFeed] = {}

    def feed(self, alias: str) -> LiveFeed:
        """The one of a declared model. Raises TooManyWatchers."""
        if sum(feed.num_watchers for feed in self._feeds.values()) >= MAX_WATCHERS:
            raise TooManyWatchers(
                f"{MAX_WATCHERS} pages watch this worker already; close one of them.", retry_after_s=10.0
            )
        return self._feeds.setdefault(alias, LiveFeed(self._provider, alias))


def run_lengths(cells: bytes) -> list[int]:
    """Pairs of a cell and how many like it follow one another."""
    values = array("H")
    values.frombytes(cells)
    return [number for cell, run in groupby(values) for number in (cell, sum(1 for _ in run))]


def ranges(numbers: Iterable[int]) -> list[int]:
    """Pairs of a first number and how many follow it without a gap; `numbers` ascend."""
    found: list[int] = []
    for number in numbers:
        if found and number == found[-2] + found[-1]:
            found[-1] += 1
        else:
            found += (number, 1)
    return found
