"""The loop that drives an engine for a measurement."""

from __future__ import annotations

import math

import msgspec

from batching.engine import EngineCore
from batching.scheduler import Scheduler
from batching.step import SampledToken, SchedulerOutput, StepOutput
from ops.bench.gpu.drive import drive
from ops.bench.gpu.workload import WorkloadSize, draw_requests
from ops.bench.host_work import make_config, make_info
from tests.batching.lag_one_runner import LagOneRunner

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


def test_runner_that_takes_plans_ahead_is_kept_one_step_ahead() -> None:
    scheduler = Scheduler(msgspec.structs.replace(make_config(num_seqs=5, num_steps=20), max_steps_in_flight=2))
    runner = LagOneRunner(scheduler.config.num_blocks, scheduler.config.block_size)
    core = EngineCore(info=make_info(scheduler.config), scheduler=scheduler, runner=runner)
    driven = drive(core, REQUESTS, deadline_s=math.inf)
    assert driven.num_tokens == sum(request.sampling.max_tokens for request in REQUESTS)
    assert runner.most_under_way == 2
    assert runner.num_under_way == 0
