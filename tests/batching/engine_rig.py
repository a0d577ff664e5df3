"""An engine whose steps and clock the test controls, used in process or over a Unix socket, and what reads from it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from batching.async_engine import AsyncEngine
from batching.engine import EngineCore
from batching.engine_server import EngineServer
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, SchedulerOutput, StepOutput
from contracts.engine import DeltaStream, Engine, EngineInfo
from contracts.generation import FinishReason, GenerationDelta, Tenant
from service.engine_client import EngineClient
from tests.batching.real_engine import request_of

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
        self.is_out_of_memory = False
        self.seq_ids: list[set[int]] = []

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.num_steps += 1
        self.seq_ids.append({row.seq_id for row in plan.sequences})
        sampled = [SampledToken(token_id=row.context_len % 128) if row.is_sampling else None for row in plan.sequences]
        return StepOutput(
            step_id=plan.step_id,
            sampled=list(sampled),
            duration_s=0.001,
            was_out_of_memory=self.is_out_of_memory,
        )


class GatedAheadRunner(GatedRunner):
    """The same for a runner that takes a plan ahead: a step waits inside `collect`."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: deque[SchedulerOutput] = deque()

    def launch(self, plan: SchedulerOutput) -> None:
        assert len(self._under_way) < 2
        self._under_way.append(plan)

    def collect(self) -> StepOutput:
        output = self.execute(self._under_way[0])
        self._under_way.popleft()
        return output


class Rig:
    """One engine over a GatedRunner, and a clock that the test moves.

    `front` is what a caller sees of the engine: the engine itself, or a client of its socket.
    """

    def __init__(self, *, is_ahead: bool = False) -> None:
        config = SchedulerConfig(
            num_blocks=NUM_BLOCKS,
            block_size=BLOCK_SIZE,
            max_model_len=NUM_BLOCKS * BLOCK_SIZE,
            vocab_size=128,
            eos_token_ids=frozenset(),
            max_num_seqs=8,
            max_num_batched_tokens=16,
            max_queued_requests=20,
            max_steps_in_flight=2 if is_ahead else 1,
        )
        self.num_ahead = int(is_ahead)
        """Steps that are planned before the tokens of the one that waits at the gate are known."""
        self.now_s = 0.0
        self.runner = GatedAheadRunner() if is_ahead else GatedRunner()
        self.scheduler = Scheduler(config)
        core = EngineCore(info=fake_info(), scheduler=self.scheduler, runner=self.runner)
        self.engine = AsyncEngine(core, ThreadPoolExecutor(max_workers=1), clock=lambda: self.now_s)
        self.front: Engine = self.engine

    async def submit(self, request_id: str, tenant: Tenant | None = None, **options: Any) -> DeltaStream:
        request = request_of(request_id, [1, 2, 3], **({"max_tokens": 4} | options))
        return await self.front.submit(msgspec.structs.replace(request, tenant=tenant or Tenant()))

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

    async def until_nothing_is_left(self) -> None:
        """Wait for the engine to be idle, and check its books."""
        await until(lambda: not self.scheduler.has_work and not self.scheduler.is_step_in_flight)
        self.check_nothing_is_left()


@asynccontextmanager
async def in_process(*, is_ahead: bool = False) -> AsyncIterator[Rig]:
    """The engine itself; drained at the end."""
    rig = Rig(is_ahead=is_ahead)
    yield rig
    rig.runner.gate.set()
    await rig.engine.drain(0.0)


@asynccontextmanager
async def over_socket(path: Path, *, is_ahead: bool = False) -> AsyncIterator[Rig]:
    """The engine behind an EngineServer, seen by an EngineClient; all closed at the end."""
    async with in_process(is_ahead=is_ahead) as rig, listening(rig, path), connected(path) as client:
        rig.front = client
        yield rig


KINDS = ("in process", "over a socket", "one step ahead")
"""The forms of one protocol: nothing but the number of steps may tell them apart."""


def rig_of(kind: str, path: Path) -> AbstractAsyncContextManager[Rig]:
    """One of KINDS."""
    return over_socket(path) if kind == "over a socket" else in_process(is_ahead=kind == "one step ahead")


@asynccontextmanager
async def listening(rig: Rig, path: Path) -> AsyncIterator[EngineServer]:
    """The rig's engine behind a socket."""
    server = EngineServer(rig.engine, path)
    await server.start()
    yield server
    rig.runner.gate.set()
    await server.stop()


@asynccontextmanager
async def connected(path: Path, timeout_s: float = PATIENCE_S) -> AsyncIterator[EngineClient]:
    """A client of the socket, drained at the end."""
    client = await EngineClient.connect(path, timeout_s)
    yield client
    await client.drain(0.0)


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


def errors_of(deltas: list[GenerationDelta]) -> set[str | None]:
    """What the final deltas say went wrong."""
    return {delta.error for delta in deltas if delta.finish_reason is not None}
