"""The loop that drives an engine for a measurement."""

from __future__ import annotations

import math
from collections import deque
from types import SimpleNamespace
from typing import Any

from batching.engine import EngineCore
from batching.scheduler import Scheduler
from batching.step import SampledToken, SchedulerOutput, StepOutput
from ops.bench.gpu.drive import MAX_LAUNCHED, StepsAhead, drive
from ops.bench.gpu.workload import WorkloadSize, draw_requests
from ops.bench.host_work import make_config, make_info

REQUESTS = draw_requests(WorkloadSize(num_requests=5, shortest=3, longest=20), 1000)


class SureRunner:
    """Knows the next token of every row."""

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        sampled = [SampledToken(token_id=1) if row.is_sampling else None for row in plan.sequences]
        return StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=0.001)


def make_core() -> EngineCore:
    scheduler = Scheduler(make_config(num_seqs=5, num_steps=20))
    return EngineCore(info=make_info(scheduler.config), scheduler=scheduler, runner=SureRunner())


def test_every_token_of_every_request_is_counted() -> None:
    seen: list[int] = []
    driven = drive(make_core(), REQUESTS, deadline_s=math.inf, observe=lambda delta, at_s: seen.extend(delta.token_ids))
    assert driven.num_tokens == len(seen) == sum(request.sampling.max_tokens for request in REQUESTS)
    assert driven.num_steps == max(request.sampling.max_tokens for request in REQUESTS)
    assert driven.is_complete and not driven.errors


def test_requests_are_aborted_when_the_time_is_up() -> None:
    core = make_core()
    driven = drive(core, REQUESTS, deadline_s=0.0)
    assert not driven.is_complete
    assert driven.num_tokens == len(REQUESTS)  # of the one step that was taken
    assert not core.scheduler.has_work


class EndlessScheduler:
    """Plans ahead as often as it is asked."""

    def __init__(self, num_plans: int) -> None:
        self._plans = list(range(num_plans))
        self.committed: list[int] = []

    def schedule(self, now_s: float) -> int | None:
        return self._plans.pop(0) if self._plans else None

    def commit(self, output: int, now_s: float) -> list[int]:
        self.committed.append(output)
        return [output]


class QueueingRunner:
    """Collects in the order of the launches and remembers how many there were at once."""

    def __init__(self) -> None:
        self._launched: deque[int] = deque()
        self.most = 0

    def launch(self, plan: int) -> None:
        self._launched.append(plan)
        self.most = max(self.most, len(self._launched))

    def collect(self) -> int:
        return self._launched.popleft()


def test_one_step_ahead_is_launched_before_the_oldest_is_collected() -> None:
    scheduler, runner = EndlessScheduler(4), QueueingRunner()
    core: Any = SimpleNamespace(scheduler=scheduler, runner=runner)
    steps: Any = StepsAhead(core)
    assert [steps.take() for _ in range(4)] == [[0], [1], [2], [3]]
    assert scheduler.committed == [0, 1, 2, 3]
    assert runner.most == MAX_LAUNCHED
