"""The engine in process: what its step boundary means, its end, and a real model in it.

What it has in common with the engine behind a socket is in test_engine_protocol.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from batching.async_engine import AsyncEngine
from contracts.errors import RateLimited
from contracts.generation import Tenant
from tests.batching.engine_rig import NUM_BLOCKS, PATIENCE_S, Rig, in_process, read, tokens_of, until
from tests.batching.real_engine import engine_settings, greedy_request
from tests.batching.tiny_models import TinyModels


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with in_process() as rig:
        yield rig


async def test_abort_in_flight_frees_the_blocks_at_the_next_boundary(rig: Rig) -> None:
    await rig.submit_and_hold("a", max_tokens=50)
    other = await rig.submit("b", max_tokens=10)
    rig.engine.abort("a")
    assert rig.engine.stats().num_free_blocks < NUM_BLOCKS  # the runner may still write to them
    rig.runner.gate.set()
    await read(other)
    assert all(1 not in seq_ids for seq_ids in rig.runner.seq_ids[1:])
    rig.check_nothing_is_left()


async def test_loop_that_is_drained_has_ended(rig: Rig) -> None:
    ended = asyncio.create_task(rig.engine.wait_until_ended())
    await asyncio.sleep(0)
    assert not ended.done()
    await rig.engine.drain(0.0)
    await asyncio.wait_for(ended, PATIENCE_S)


async def test_loop_that_has_died_has_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is to end then, and to be replaced."""
    await rig.submit_and_hold("a")
    monkeypatch.setattr(rig.scheduler, "commit", None)
    rig.runner.gate.set()
    await asyncio.wait_for(rig.engine.wait_until_ended(), PATIENCE_S)
    assert not rig.engine.stats().is_alive


async def test_step_in_flight_is_timed(rig: Rig) -> None:
    await rig.submit_and_hold("a", max_tokens=1)
    before_s = rig.engine.timer.elapsed_s
    await asyncio.sleep(0.02)
    assert rig.engine.timer.elapsed_s >= before_s + 0.02
    rig.runner.gate.set()
    await rig.until_nothing_is_left()
    assert rig.engine.timer.elapsed_s == 0.0


async def test_real_model_says_the_same_through_the_async_engine(tiny_models: TinyModels) -> None:
    reference = tiny_models.reference("llama")
    stages: list[str] = []
    engine = await AsyncEngine.start(engine_settings(reference.path), lambda stage, _: stages.append(stage))
    streams = [
        await engine.submit(greedy_request(str(index), prompt)) for index, prompt in enumerate(reference.prompts)
    ]
    results = await asyncio.gather(*(read(stream) for stream in streams))
    assert [tokens_of(deltas) for deltas in results] == reference.outputs
    assert engine.stats().num_free_blocks == engine.info.num_blocks
    assert stages[-1] == "warming up"
    await engine.drain(1.0)


async def test_model_that_cannot_be_loaded_stops_the_start(tmp_path: Any) -> None:
    with pytest.raises(Exception, match=r"config\.json"):
        await AsyncEngine.start(engine_settings(tmp_path))


async def test_stats_count_shortages_of_memory_until_a_step_fits(rig: Rig) -> None:
    rig.runner.is_out_of_memory = True
    stream = await rig.submit_and_hold("a", max_tokens=50)
    rig.runner.gate.set()
    await rig.shut()
    stats = rig.engine.stats()
    assert 1 <= stats.num_consecutive_oom == stats.num_out_of_memory == stats.num_steps - 1
    rig.runner.is_out_of_memory = False
    await rig.submit("b", max_tokens=100)  # keeps the engine from resting
    rig.runner.gate.set()
    await read(stream)
    assert rig.engine.stats().num_consecutive_oom == 0
    assert rig.engine.stats().num_out_of_memory == stats.num_out_of_memory


async def test_idle_engine_is_not_short_of_memory(rig: Rig) -> None:
    rig.runner.is_out_of_memory = True
    await read(await rig.submit("a"))
    await until(lambda: rig.engine.stats().num_consecutive_oom == 0)
    assert (rig.engine.stats().num_out_of_memory, rig.engine.stats().num_failed) == (4, 0)


async def test_tenant_over_its_limit_is_refused_without_a_trace(rig: Rig) -> None:
    tenant = Tenant(name="a", requests_per_minute=1)
    stream = await rig.submit("first", tenant=tenant)
    with pytest.raises(RateLimited):
        await rig.submit("second", tenant=tenant)
    assert tokens_of(await read(stream)) == [3, 4, 5, 6]
    assert rig.engine.stats().num_rate_limited == 1
    rig.now_s = 60.0
    assert tokens_of(await read(await rig.submit("second", tenant=tenant))) == [3, 4, 5, 6]
    rig.check_nothing_is_left()


async def test_wrong_books_are_logged_counted_and_begun_anew_when_idle(rig: Rig) -> None:
    await read(await rig.submit("a"))
    await until(lambda: not rig.scheduler.has_work)
    rig.scheduler.pool._num_refs[5] = 1
    with structlog.testing.capture_logs() as lines:
        await read(await rig.submit("b"))
        await until(lambda: rig.engine.stats().num_integrity_faults == 1)
    assert [(line["event"], line["log_level"]) for line in lines] == [("integrity_fault_repaired", "error")]
    assert "1 blocks are held" in lines[0]["fault"]
    assert rig.engine.stats().is_alive
    assert tokens_of(await read(await rig.submit("c"))) == [3, 4, 5, 6]
    rig.check_nothing_is_left()
