"""What `look` promises, asked of both engines: the one in process and the one behind its socket."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import EngineDead
from contracts.live import FIRST_HOLDER
from tests.batching.engine_rig import KINDS, NUM_BLOCKS, Rig, read, rig_of, until


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_of(request.param, tmp_path / "s") as rig:
        yield rig


async def test_look_at_an_idle_engine_shows_nothing(rig: Rig) -> None:
    look = await rig.front.look()
    assert (look.running, look.waiting, look.num_waiting, look.shared) == ([], [], 0, [])
    assert look.cells == bytes(2 * NUM_BLOCKS)
    assert (look.num_blocks, look.num_free_blocks) == (NUM_BLOCKS, NUM_BLOCKS)


async def test_look_comes_while_a_step_is_under_way(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a")
    look = await rig.front.look()
    cells = array("H")
    cells.frombytes(look.cells)
    assert [one.request_id for one in look.running] == ["a"]
    assert list(cells).count(FIRST_HOLDER) == look.running[0].num_blocks == NUM_BLOCKS - look.num_free_blocks
    rig.runner.gate.set()
    await read(stream)


async def test_look_counts_what_has_been_done(rig: Rig) -> None:
    await read(await rig.submit("a"))
    await rig.until_nothing_is_left()
    counters = (await rig.front.look()).counters
    assert (counters.num_requests, counters.num_ended, counters.num_generated_tokens) == (1, 1, 4)
    assert (counters.num_first_tokens, counters.num_inter_tokens) == (1, 3)


async def test_dead_engine_shows_nothing_any_more(rig: Rig) -> None:
    rig.engine._die("it broke")
    await until(lambda: rig.engine.rest is not None)
    with pytest.raises(EngineDead):
        await rig.front.look()
