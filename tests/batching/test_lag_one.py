"""The loop that runs one step ahead of the tokens: never a token too many or too few, whatever ends when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from batching.async_engine import AsyncEngine
from batching.engine import EngineCore
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import StepOutput
from contracts.engine import DeltaStream
from contracts.errors import EngineDead
from contracts.generation import FinishReason, GenerationRequest
from contracts.sampling import SamplingParams
from tests.batching.engine_rig import fake_info, until
from tests.batching.lag_one_runner import EOS, VOCAB_SIZE, LagOneRunner, text_alone

BLOCK_SIZE = 4
DELAYS_S = {
    "at once": (0.0,),
    "steady": (0.001,),
    "now and then slow": (0.0, 0.0, 0.0, 0.006),
    "slow": (0.004,),
}


class LagOneRig:
    """An AsyncEngine over a LagOneRunner."""

    def __init__(self, num_blocks: int, delays_s: tuple[float, ...]) -> None:
        self.num_blocks = num_blocks
        self.runner = LagOneRunner(num_blocks, BLOCK_SIZE, delays_s)
        config = SchedulerConfig(
            num_blocks=num_blocks,
            block_size=BLOCK_SIZE,
            max_model_len=48,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=frozenset({EOS}),
            max_num_seqs=5,
            max_num_batched_tokens=16,
            max_prefill_tokens_while_decoding=6,
            max_steps_in_flight=2,
        )
        self.scheduler = Scheduler(config)
        core = EngineCore(info=fake_info(), scheduler=self.scheduler, runner=self.runner)
        self.engine = AsyncEngine(core, ThreadPoolExecutor(max_workers=1))

    async def submit(self, request: GenerationRequest) -> DeltaStream:
        return await self.engine.submit(request)

    async def check_nothing_is_left(self) -> None:
        await until(lambda: not self.scheduler.has_work and not self.scheduler.is_step_in_flight)
        self.scheduler.check_integrity()
        assert self.scheduler.repair_idle() is None
        assert self.scheduler.pool.num_free_blocks == self.num_blocks
        assert self.runner.num_under_way == 0


@asynccontextmanager
async def lag_one(num_blocks: int = 64, delays_s: tuple[float, ...] = (0.0,)) -> AsyncIterator[LagOneRig]:
    rig = LagOneRig(num_blocks, delays_s)
    yield rig
    rig.runner.gate.set()
    await rig.engine.drain(0.0)


def request_of(
    name: str, prompt: list[int], *, max_tokens: int, seed: int = 0, ignore_eos: bool = True
) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=max_tokens, seed=seed, ignore_eos=ignore_eos)
    return GenerationRequest(request_id=name, prompt_token_ids=prompt, sampling=sampling)


def random_request(rng: random.Random, number: int) -> GenerationRequest:
    prompt = [rng.randrange(2) for _ in range(rng.choice([1, 2, 3, 5, 9, 17]))]
    max_tokens = rng.choice([1, 2, 8, 20, 28, 28])
    return request_of(
        f"r{number}", prompt, max_tokens=max_tokens, seed=rng.randrange(4), ignore_eos=rng.random() < 0.75
    )


async def read(stream: DeltaStream, after: Callable[[int], None] = lambda num_tokens: None) -> tuple[list[int], str]:
    """All tokens and the end; `after` is told how many tokens there are so far."""
    token_ids: list[int] = []
    reason = None
    while reason is None:
        for delta in await stream.take():
            assert reason is None, "something comes after the end"
            token_ids += delta.token_ids
            reason = delta.finish_reason
            after(len(token_ids))
    return token_ids, reason.value


def check_text(request: GenerationRequest, token_ids: list[int], reason: str) -> None:
    whole = text_alone(request)
    assert token_ids == whole[: len(token_ids)]
    assert reason in ("stop", "length", "abort")
    assert reason == "abort" or token_ids == whole
    assert reason == "abort" or reason == ("stop" if EOS in whole and not request.sampling.ignore_eos else "length")


@pytest.mark.parametrize("delays", DELAYS_S)
@pytest.mark.parametrize("num_blocks", [12, 64], ids=["crowded", "roomy"])
async def test_every_text_is_that_of_the_request_alone(delays: str, num_blocks: int) -> None:
    rng = random.Random(num_blocks)
    requests = [random_request(rng, number) for number in range(60)]
    leave_after = {request.request_id: rng.choice([0, 2, 9, 99, 99, 99, 99]) for request in requests}
    async with lag_one(num_blocks, DELAYS_S[delays]) as rig:

        async def run(request: GenerationRequest) -> tuple[list[int], str]:
            limit = leave_after[request.request_id]

            def leave(num_tokens: int) -> None:
                if num_tokens == limit:
                    rig.engine.abort(request.request_id)

            stream = await rig.submit(request)
            leave(0)
            return await read(stream, leave)

        ends = await asyncio.gather(*(run(request) for request in requests))
        await rig.check_nothing_is_left()
        for request, (token_ids, reason) in zip(requests, ends, strict=True):
            check_text(request, token_ids, reason)
        assert rig.runner.most_under_way == 2, "it never ran ahead"
        assert (rig.scheduler.counters.num_preemptions > 0) == (num_blocks == 12)


@pytest.mark.parametrize("num_steps", range(1, 10))
@pytest.mark.parametrize("max_tokens", [1, 4, 12])
async def test_abort_while_a_step_is_under_way_leaves_the_others_alone(num_steps: int, max_tokens: int) -> None:
    gone = request_of("gone", [1, 0, 1, 1, 0, 1, 0, 1, 0], max_tokens=12)
    stays = request_of("stays", [0, 1], max_tokens=max_tokens, ignore_eos=False, seed=3)
    async with lag_one() as rig:
        streams = [await rig.submit(gone), await rig.submit(stays)]
        reading = [asyncio.create_task(read(stream)) for stream in streams]
        await until(lambda: rig.runner.num_collecting >= num_steps or not rig.scheduler.has_work)
        rig.runner.gate.clear()
        rig.engine.abort("gone")
        await asyncio.sleep(0.002)
        rig.runner.gate.set()
        for request, task in zip((gone, stays), reading, strict=True):
            check_text(request, *await task)
        await rig.check_nothing_is_left()


async def test_last_token_by_length_wastes_no_row() -> None:
    async with lag_one() as rig:
        await read(await rig.submit(request_of("r", [1, 0], max_tokens=5)))
        await rig.check_nothing_is_left()
        assert rig.scheduler.counters.num_scheduled_seqs == 5


async def test_stop_token_is_the_last_that_is_told_and_wastes_one_row() -> None:
    seed = next(
        seed for seed in range(100) if text_alone(stopping(seed)).count(EOS) and len(text_alone(stopping(seed))) > 3
    )
    async with lag_one() as rig:
        token_ids, reason = await read(await rig.submit(stopping(seed)))
        await rig.check_nothing_is_left()
        assert (token_ids, reason) == (text_alone(stopping(seed)), FinishReason.STOP.value)
        assert rig.scheduler.counters.num_scheduled_seqs == len(token_ids) + 1


def stopping(seed: int) -> GenerationRequest:
    return request_of("r", [1, 0], max_tokens=20, seed=seed, ignore_eos=False)


@pytest.mark.parametrize("failing", [{1}, {2}, {3}, {2, 3}, {4, 6}])
async def test_launch_that_fails_is_repeated_in_its_turn(failing: set[int]) -> None:
    requests = [request_of(f"r{number}", [number % 2, 1, 0], max_tokens=8, seed=number) for number in range(3)]
    async with lag_one() as rig:
        rig.runner.failing = failing
        streams = [await rig.submit(request) for request in requests]
        ends = await asyncio.gather(*(read(stream) for stream in streams))
        await rig.check_nothing_is_left()
    for request, (token_ids, reason) in zip(requests, ends, strict=True):
        check_text(request, token_ids, reason)


async def test_row_that_cannot_be_launched_fails_alone() -> None:
    requests = [request_of(f"r{number}", [number % 2, 1, 0], max_tokens=8, seed=number) for number in range(3)]
    async with lag_one() as rig:
        rig.runner.failing = {3, 4, 5}  # the step, the step again, and its first half: one row
        streams = [await rig.submit(request) for request in requests]
        ends = await asyncio.gather(*(read(stream) for stream in streams))
        await rig.check_nothing_is_left()
    assert [reason for _, reason in ends] == ["error", "length", "length"]
    for request, (token_ids, reason) in list(zip(requests, ends, strict=True))[1:]:
        check_text(request, token_ids, reason)


async def test_device_that_is_lost_ends_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lag_one() as rig:

        def lose() -> StepOutput:
            raise RuntimeError("an illegal memory access was encountered")

        monkeypatch.setattr(rig.runner, "collect", lose)
        streams = [await rig.submit(request_of(f"r{number}", [1, 0], max_tokens=8)) for number in range(3)]
        ends = await asyncio.gather(*(read(stream) for stream in streams))
        assert ends == [([], FinishReason.LOST.value)] * 3
        with pytest.raises(EngineDead):
            await rig.submit(request_of("late", [1], max_tokens=1))


async def test_drain_ends_what_is_under_way() -> None:
    async with lag_one(delays_s=(0.002,)) as rig:
        stream = await rig.submit(request_of("r", [1, 0], max_tokens=30))
        reading = asyncio.create_task(read(stream))
        await until(lambda: rig.runner.num_collecting >= 3)
        await rig.engine.drain(10.0)
        check_text(request_of("r", [1, 0], max_tokens=30), *await reading)
        assert rig.runner.num_under_way == 0
