"""The asyncio engine: streams, aborts at any moment, drain, deadlines and death, with a runner the test controls."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batching.async_engine import AsyncEngine
from batching.engine import EngineCore
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, SchedulerOutput, StepOutput
from contracts.engine import DeltaStream, EngineInfo
from contracts.errors import ContextLengthExceeded, EngineDead, InvalidValue, QueueFull, ShuttingDown
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from tests.batching.real_engine import engine_settings, greedy_request, request_of
from tests.batching.tiny_models import TinyModels

NUM_BLOCKS = 32
BLOCK_SIZE = 4
PATIENCE_S = 20.0
"""No test waits for this long unless it fails."""


class GatedRunner:
    """The next token is the number of tokens so far. While the gate is shut, a step waits inside `execute`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.num_steps = 0
        self.seq_ids: list[set[int]] = []

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.num_steps += 1
        self.seq_ids.append({row.seq_id for row in plan.sequences})
        sampled = [SampledToken(token_id=row.context_len % 128) if row.is_sampling else None for row in plan.sequences]
        return StepOutput(step_id=plan.step_id, sampled=list(sampled), duration_s=0.001)


class Rig:
    """One engine over a GatedRunner, and a clock that the test moves."""

    def __init__(self) -> None:
        config = SchedulerConfig(
            num_blocks=NUM_BLOCKS,
            block_size=BLOCK_SIZE,
            max_model_len=NUM_BLOCKS * BLOCK_SIZE,
            vocab_size=128,
            eos_token_ids=frozenset(),
            max_num_seqs=8,
            max_num_batched_tokens=16,
            max_queued_requests=20,
        )
        self.now_s = 0.0
        self.runner = GatedRunner()
        self.scheduler = Scheduler(config)
        core = EngineCore(info=fake_info(), scheduler=self.scheduler, runner=self.runner)
        self.engine = AsyncEngine(core, ThreadPoolExecutor(max_workers=1), clock=lambda: self.now_s)

    async def submit(self, request_id: str, **options: Any) -> DeltaStream:
        return await self.engine.submit(request_of(request_id, [1, 2, 3], **({"max_tokens": 4} | options)))

    async def shut(self) -> None:
        """Shut the gate and wait until a step stands before it."""
        self.runner.gate.clear()
        self.runner.entered.clear()
        assert await asyncio.to_thread(self.runner.entered.wait, PATIENCE_S)

    async def submit_and_hold(self, request_id: str, **options: Any) -> DeltaStream:
        """Submit while the gate is shut; returns when the first step waits in the runner."""
        self.runner.gate.clear()
        self.runner.entered.clear()
        stream = await self.submit(request_id, **options)
        assert await asyncio.to_thread(self.runner.entered.wait, PATIENCE_S)
        return stream

    def check_nothing_is_left(self) -> None:
        self.scheduler.check_integrity()
        assert self.engine.stats().num_free_blocks == NUM_BLOCKS
        assert self.engine.stats().num_running == self.engine.stats().num_waiting == 0


def fake_info() -> EngineInfo:
    return EngineInfo(
        model_name="fake",
        model_path="/nowhere",
        architecture="Fake",
        device="cpu",
        dtype="float32",
        vocab_size=128,
        max_model_len=NUM_BLOCKS * BLOCK_SIZE,
        eos_token_ids=[],
        block_size=BLOCK_SIZE,
        num_blocks=NUM_BLOCKS,
        max_num_seqs=8,
        max_num_batched_tokens=16,
        num_parameters=0,
        fingerprint="fp_fake",
    )


async def read(stream: DeltaStream) -> list[GenerationDelta]:
    """Everything a stream brings until it is over."""
    deltas: list[GenerationDelta] = []
    async with asyncio.timeout(PATIENCE_S):
        while taken := await stream.take():
            deltas += taken
    return deltas


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)  # not 0: hundreds of pollers would keep the GIL from the runner thread


def tokens_of(deltas: list[GenerationDelta], sample_index: int = 0) -> list[int]:
    return [token for delta in deltas if delta.sample_index == sample_index for token in delta.token_ids]


def finals_of(deltas: list[GenerationDelta]) -> list[tuple[int, FinishReason | None]]:
    return sorted((delta.sample_index, delta.finish_reason) for delta in deltas if delta.finish_reason is not None)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    rig.runner.gate.set()
    await rig.engine.drain(0.0)


async def test_stream_brings_all_tokens_and_one_final_delta(rig: Rig) -> None:
    deltas = await read(await rig.submit("a"))
    assert tokens_of(deltas) == [3, 4, 5, 6]
    assert finals_of(deltas) == [(0, FinishReason.LENGTH)]
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    rig.check_nothing_is_left()


async def test_finished_stream_gives_nothing_more(rig: Rig) -> None:
    stream = await rig.submit("a")
    await read(stream)
    assert stream.is_finished
    assert await stream.take() == []


async def test_each_sample_ends_once(rig: Rig) -> None:
    deltas = await read(await rig.submit("a", num_samples=3))
    assert finals_of(deltas) == [(index, FinishReason.LENGTH) for index in range(3)]
    assert [tokens_of(deltas, index) for index in range(3)] == [[3, 4, 5, 6]] * 3
    rig.check_nothing_is_left()


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


async def test_refused_request_leaves_no_stream(rig: Rig) -> None:
    with pytest.raises(ContextLengthExceeded):
        await rig.submit("a", max_tokens=10_000)
    rig.check_nothing_is_left()
    assert tokens_of(await read(await rig.submit("a"))) == [3, 4, 5, 6]


async def test_full_queue_refuses_and_recovers(rig: Rig) -> None:
    streams = [await rig.submit_and_hold("first")]
    streams += [await rig.submit(f"waiting-{index}") for index in range(20)]
    with pytest.raises(QueueFull) as caught:
        await rig.submit("one too many")
    assert (caught.value.retry_after_s or 0) > 0
    rig.runner.gate.set()
    results = [await read(stream) for stream in streams]
    assert [finals_of(deltas) for deltas in results] == [[(0, FinishReason.LENGTH)]] * 21


async def test_abort_ends_the_stream_before_the_step_does(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a", max_tokens=50)
    rig.engine.abort("a")
    assert finals_of(await read(stream)) == [(0, FinishReason.ABORT)]
    assert rig.runner.num_steps == 0


async def test_abort_in_flight_frees_the_blocks_at_the_next_boundary(rig: Rig) -> None:
    await rig.submit_and_hold("a", max_tokens=50)
    other = await rig.submit("b", max_tokens=10)
    rig.engine.abort("a")
    assert rig.engine.stats().num_free_blocks < NUM_BLOCKS  # the runner may still write to them
    rig.runner.gate.set()
    await read(other)
    assert all(1 not in seq_ids for seq_ids in rig.runner.seq_ids[1:])
    rig.check_nothing_is_left()


async def test_abort_of_a_waiting_request_never_runs_it(rig: Rig) -> None:
    first = await rig.submit_and_hold("first")
    second = await rig.submit("second")
    rig.engine.abort("second")
    rig.runner.gate.set()
    assert finals_of(await read(second)) == [(0, FinishReason.ABORT)]
    await read(first)
    assert {seq_id for seq_ids in rig.runner.seq_ids for seq_id in seq_ids} == {1}


@pytest.mark.parametrize("num_held_steps", [0, 1, 2])
async def test_abort_ends_every_sample(rig: Rig, num_held_steps: int) -> None:
    stream = await rig.submit_and_hold("a", num_samples=3, max_tokens=50)
    for _ in range(num_held_steps):
        rig.runner.gate.set()
        await rig.shut()
    rig.engine.abort("a")
    rig.runner.gate.set()
    assert finals_of(await read(stream)) == [(index, FinishReason.ABORT) for index in range(3)]
    await until(lambda: not rig.scheduler.is_step_in_flight)
    rig.check_nothing_is_left()


async def test_abort_twice_after_the_end_or_of_nobody_changes_nothing(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a")
    rig.engine.abort("a")
    rig.engine.abort("a")
    rig.engine.abort("nobody")
    rig.runner.gate.set()
    assert len(await read(stream)) == 1
    done = await rig.submit("b")
    deltas = await read(done)
    rig.engine.abort("b")
    assert finals_of(deltas) == [(0, FinishReason.LENGTH)]
    assert await done.take() == []


async def abort_at_random(rig: Rig, draw: random.Random, index: int) -> list[GenerationDelta]:
    """One client: submits at some time, goes away at some other, reads what is left."""
    num_samples = draw.choice([1, 1, 2, 3])
    num_yields, num_takes = draw.randrange(0, 40), draw.randrange(0, 4)
    prompt = [draw.randrange(128) for _ in range(draw.randrange(1, 40))]
    await until(lambda: rig.engine.stats().num_waiting < 15)
    request = request_of(str(index), prompt, num_samples=num_samples, max_tokens=draw.randrange(1, 30))
    stream = await rig.engine.submit(request)
    deltas: list[GenerationDelta] = []
    for _ in range(num_takes):
        deltas += await stream.take()
    for _ in range(num_yields):
        await asyncio.sleep(0)
    rig.engine.abort(str(index))
    deltas += await read(stream)
    assert [sample for sample, _ in finals_of(deltas)] == list(range(num_samples))
    return deltas


async def test_200_aborts_at_random_moments_leave_nothing(rig: Rig) -> None:
    draw = random.Random(3)
    clients = [abort_at_random(rig, random.Random(draw.random()), index) for index in range(200)]
    results = await asyncio.gather(*clients)
    await until(lambda: not rig.scheduler.has_work and not rig.scheduler.is_step_in_flight)
    rig.check_nothing_is_left()
    reasons = {reason for deltas in results for _, reason in finals_of(deltas)}
    assert reasons == {FinishReason.ABORT, FinishReason.LENGTH}


async def test_deadline_ends_a_request_at_a_step_boundary(rig: Rig) -> None:
    request = GenerationRequest(
        request_id="late",
        prompt_token_ids=[1, 2, 3],
        sampling=request_of("late", [1], max_tokens=50).sampling,
        timeout_s=5.0,
    )
    rig.runner.gate.clear()
    stream = await rig.engine.submit(request)
    assert await asyncio.to_thread(rig.runner.entered.wait, PATIENCE_S)
    rig.now_s = 5.0
    rig.runner.gate.set()
    deltas = await read(stream)
    assert finals_of(deltas) == [(0, FinishReason.DEADLINE)]
    assert tokens_of(deltas) == [3]
    rig.check_nothing_is_left()


async def test_stats_do_not_wait_for_the_step_in_flight(rig: Rig) -> None:
    await rig.submit_and_hold("a")
    stats = rig.engine.stats()
    assert (stats.num_running, stats.num_steps, stats.is_alive, stats.is_draining) == (1, 1, True, False)
    assert stats.num_free_blocks == NUM_BLOCKS - 1


async def test_drain_lets_the_running_end_and_refuses_the_new(rig: Rig) -> None:
    stream = await rig.submit_and_hold("a")
    drain = asyncio.create_task(rig.engine.drain(PATIENCE_S))
    await until(lambda: rig.engine.stats().is_draining)
    with pytest.raises(ShuttingDown):
        await rig.submit("b")
    rig.runner.gate.set()
    assert finals_of(await read(stream)) == [(0, FinishReason.LENGTH)]
    await drain


async def test_drain_aborts_what_is_left_at_its_deadline(rig: Rig) -> None:
    streams = [await rig.submit_and_hold("a", max_tokens=50), await rig.submit("b", num_samples=2)]
    drain = asyncio.create_task(rig.engine.drain(0.01))
    results = [await read(stream) for stream in streams]
    rig.runner.gate.set()
    await drain
    assert [finals_of(deltas) for deltas in results] == [
        [(0, FinishReason.ABORT)],
        [(0, FinishReason.ABORT), (1, FinishReason.ABORT)],
    ]


async def test_drain_of_an_idle_engine_ends_at_once(rig: Rig) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await rig.engine.drain(1000.0)
    assert rig.engine.stats().is_draining


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
        [(0, FinishReason.ERROR)],
        [(0, FinishReason.ERROR), (1, FinishReason.ERROR)],
    ]
    assert {delta.error for deltas in results for delta in deltas if delta.finish_reason is not None} == {
        "the engine stopped: RuntimeError"
    }
    assert not rig.engine.stats().is_alive
    with pytest.raises(EngineDead):
        await rig.submit("c")
    rig.engine.abort("a")


async def test_dead_engine_can_be_drained(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await rig.submit_and_hold("a")
    monkeypatch.setattr(rig.scheduler, "commit", None)
    rig.runner.gate.set()
    await read(stream)
    async with asyncio.timeout(PATIENCE_S):
        await rig.engine.drain(1000.0)
    assert rig.engine.stats().is_draining


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
