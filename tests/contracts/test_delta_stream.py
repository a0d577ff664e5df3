"""DeltaStream carries every delta once, in order, and says when it is over."""

from __future__ import annotations

import asyncio

from contracts.engine import DeltaStream
from contracts.generation import FinishReason, GenerationDelta


def _delta(sample_index: int, *token_ids: int, reason: FinishReason | None = None) -> GenerationDelta:
    return GenerationDelta(request_id="r", sample_index=sample_index, token_ids=list(token_ids), finish_reason=reason)


async def test_everything_ready_is_taken_at_once_in_order() -> None:
    """One wake-up takes all tokens, so that they can go out in one send."""
    stream = DeltaStream("r", 1)
    stream.put(_delta(0, 1))
    stream.put(_delta(0, 2, reason=FinishReason.LENGTH))
    assert [delta.token_ids for delta in await stream.take()] == [[1], [2]]
    assert stream.is_finished
    assert await stream.take() == []


async def test_a_waiting_taker_is_woken() -> None:
    """The consumer sleeps until the engine puts."""
    stream = DeltaStream("r", 1)
    taker = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    assert not taker.done()
    stream.put(_delta(0, 7))
    assert [delta.token_ids for delta in await taker] == [[7]]
    assert not stream.is_closed


async def test_the_stream_ends_when_every_sample_has_ended() -> None:
    """Samples end in any order; those still open are known."""
    stream = DeltaStream("r", 3)
    stream.put(_delta(2, reason=FinishReason.STOP))
    stream.put(_delta(0, reason=FinishReason.STOP))
    assert stream.open_samples == [1]
    assert not stream.is_closed
    stream.put(_delta(1, reason=FinishReason.ABORT))
    assert stream.is_closed
    assert not stream.is_finished
    assert len(await stream.take()) == 3
    assert stream.is_finished


async def test_a_cancelled_taker_loses_nothing() -> None:
    """What arrives after a cancelled wait is still there for the next one."""
    stream = DeltaStream("r", 1)
    taker = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    taker.cancel()
    await asyncio.gather(taker, return_exceptions=True)
    stream.put(_delta(0, 3))
    assert [delta.token_ids for delta in await stream.take()] == [[3]]
