"""The plain loop that drives an engine without a server: schedule, run, commit, until nothing is left.

A runner that takes the next plan before it has given the tokens of the last one is kept one step ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from batching.engine import EngineCore, execute_isolated
from contracts.generation import GenerationDelta, GenerationRequest

log = structlog.get_logger("quire.bench")
MAX_LAUNCHED = 2
"""Steps that are launched and not collected."""

Observer = Callable[[GenerationDelta, float], None]
"""Called with every delta and the time at which it was there."""


class Driven(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    num_tokens: int
    num_steps: int
    taken_s: float
    is_complete: bool
    """False: the time was up before all requests had ended; they were aborted."""
    errors: list[str]


def drive(
    core: EngineCore, requests: Sequence[GenerationRequest], *, deadline_s: float, observe: Observer | None = None
) -> Driven:
    """Run all requests as one continuous batch, or until `deadline_s`, monotonic."""
    scheduler, clock = core.scheduler, time.monotonic
    began_s, first_step = clock(), scheduler.counters.num_steps
    for request in requests:
        scheduler.submit(request, began_s)
    num_tokens, errors, is_complete = 0, [], True
    take_step = StepsAhead(core).take if can_run_ahead(core) else lambda: execute_step(core)
    while scheduler.has_work or scheduler.is_step_in_flight:
        for delta in take_step():
            num_tokens += len(delta.token_ids)
            if delta.error is not None:
                errors.append(delta.error)
            if observe is not None:
                observe(delta, clock())
        if is_complete and clock() > deadline_s:
            is_complete = False
            for request in requests:
                scheduler.abort(request.request_id, clock())
    return Driven(
        num_tokens=num_tokens,
        num_steps=scheduler.counters.num_steps - first_step,
        taken_s=clock() - began_s,
        is_complete=is_complete,
        errors=errors,
    )


def execute_step(core: EngineCore) -> list[GenerationDelta]:
    """One step from plan to commit."""
    plan = core.scheduler.schedule(time.monotonic())
    if plan is None:
        raise RuntimeError("there is work, but nothing could be scheduled")
    return core.scheduler.commit(execute_isolated(core.runner, plan, log.error), time.monotonic())


def can_run_ahead(core: EngineCore) -> bool:
    """The runner takes plans ahead, and the scheduler makes them."""
    return hasattr(core.runner, "launch") and getattr(core.scheduler.config, "num_steps_ahead", 0) > 0


class StepsAhead:
    """Plans and launches as far ahead as it may, and collects the oldest step."""

    def __init__(self, core: EngineCore) -> None:
        self._scheduler = core.scheduler
        self._runner: Any = core.runner
        self._num_launched = 0

    def take(self) -> list[GenerationDelta]:
        """The deltas of one step."""
        while self._num_launched < MAX_LAUNCHED:
            plan = self._scheduler.schedule(time.monotonic())
            if plan is None:
                break
            self._runner.launch(plan)
            self._num_launched += 1
        if self._num_launched == 0:
            raise RuntimeError("there is work, but nothing could be scheduled")
        output = self._runner.collect()
        self._num_launched -= 1
        return self._scheduler.commit(output, time.monotonic())
