"""The plain loop that drives an engine without a server: schedule, run, commit, until nothing is left.

A runner that takes the next plan before it has given the tokens of the last one is kept one step ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from batching.engine import EngineCore
from batching.step_pipeline import StepPipeline
from contracts.generation import GenerationDelta, GenerationRequest

log = structlog.get_logger("quire.bench")

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
    pipeline = StepPipeline(core.runner, log.error)
    while scheduler.has_work or scheduler.is_step_in_flight:
        output = pipeline.advance(scheduler.schedule(clock()))
        for delta in [] if output is None else scheduler.commit(output, clock()):
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


def runs_ahead(core: EngineCore) -> bool:
    """A step is planned before the tokens of the last one are there."""
    return core.scheduler.config.max_steps_in_flight > 1
