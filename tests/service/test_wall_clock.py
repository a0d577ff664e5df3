"""R30: the wall clock may jump by hours: timeouts, order and answers stay, and only `created` follows it."""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from batching.async_engine import AsyncEngine
from batching.engine import EngineCore
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from contracts.generation import FinishReason, GenerationRequest
from contracts.sampling import SamplingParams
from tests.batching.engine_rig import GatedRunner, fake_info, read

JUMPS_S = [0.0, -3600.0, 86_400.0, -10 * 86_400.0, 1.0, 365 * 86_400.0]


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the wall clock finds it somewhere else."""
    jumps = itertools.cycle(JUMPS_S)
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0 + next(jumps))


def wall_clock_engine() -> tuple[AsyncEngine, GatedRunner]:
    """An engine with the clock that it takes by itself."""
    config = SchedulerConfig(
        num_blocks=32,
        block_size=4,
        max_model_len=128,
        vocab_size=128,
        eos_token_ids=frozenset(),
        max_num_seqs=4,
        max_num_batched_tokens=16,
        max_queued_requests=20,
    )
    runner = GatedRunner()
    core = EngineCore(info=fake_info(), scheduler=Scheduler(config), runner=runner)
    return AsyncEngine(core, ThreadPoolExecutor(max_workers=1)), runner


@pytest.mark.usefixtures("jumping_clock")
async def test_deadlines_and_order_do_not_follow_the_wall_clock() -> None:
    core_engine, runner = wall_clock_engine()
    sampling = SamplingParams(max_tokens=6)
    streams = [
        await core_engine.submit(
            GenerationRequest(request_id=f"r{number}", prompt_token_ids=[1, 2], sampling=sampling, timeout_s=600.0)
        )
        for number in range(12)
    ]
    results = await asyncio.gather(*(read(stream) for stream in streams))
    assert {deltas[-1].finish_reason for deltas in results} == {FinishReason.LENGTH}
    seq_ids = sorted(set().union(*runner.seq_ids))
    first_steps = [next(step for step, ids in enumerate(runner.seq_ids) if seq_id in ids) for seq_id in seq_ids]
    assert len(first_steps) == 12
    assert first_steps == sorted(first_steps)
    await core_engine.drain(0.0)


@pytest.mark.usefixtures("jumping_clock")
async def test_requests_are_served_while_the_wall_clock_jumps(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    replies = [await client.post("/v1/chat/completions", json=body) for _ in range(6)]
    assert [reply.json()["choices"][0]["message"]["content"] for reply in replies] == ["Hello."] * 6
    assert len({reply.json()["created"] for reply in replies}) > 1
    assert all(0 <= int(reply.headers["openai-processing-ms"]) < 60_000 for reply in replies)
