"""Executes a plan so that only rows that raise alone fail; what does not fit into memory is computed in parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import torch

from batching.step import SampledToken, SchedulerOutput, StepOutput, halved_chunk, halved_rows

CPU_ALLOCATION_FAILED = "DefaultCPUAllocator: can't allocate memory"
"""How torch 2.13 words it, in a plain RuntimeError."""


class Runner(Protocol):
    """What executes a plan: a ModelRunner, or a fake in tests."""

    def execute(self, plan: SchedulerOutput) -> StepOutput: ...


class StepFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a plan, or a part of it, could not be executed. Holds no exception: its frames would hold the tensors."""

    name: str
    error: str
    is_out_of_memory: bool


def execute_isolated(runner: Runner, plan: SchedulerOutput, log: Callable[..., object]) -> StepOutput:
    """Execute a plan; if that raises, execute its halves, and so on, so that only the rows that raise alone fail.

    Computing a row twice is harmless: it writes the same K and V to the same slots.
    """
    started_s = time.perf_counter()
    outcome = _attempt(runner, plan)
    if isinstance(outcome, StepOutput):
        return outcome
    log(
        "step_failed",
        step_id=plan.step_id,
        num_sequences=len(plan.sequences),
        num_tokens=plan.num_tokens,
        error=outcome.error,
        is_out_of_memory=outcome.is_out_of_memory,
    )
    failures = [outcome]
    sampled = _execute_parts(runner, plan, failures)
    return StepOutput(
        step_id=plan.step_id,
        sampled=sampled,
        duration_s=time.perf_counter() - started_s,
        was_out_of_memory=any(failure.is_out_of_memory for failure in failures),
    )


def _attempt(runner: Runner, plan: SchedulerOutput) -> StepOutput | StepFailure:
    try:
        return runner.execute(plan)
    except Exception as error:
        return StepFailure(name=type(error).__name__, error=repr(error), is_out_of_memory=is_out_of_memory(error))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch has no type of its own for that on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATION_FAILED in str(error)


def _execute_parts(runner: Runner, plan: SchedulerOutput, failures: list[StepFailure]) -> list[SampledToken | None]:
    """Execute the halves of a plan that just failed, for the last reason in `failures`; further ones are added.

    Several rows are halved; a lone one only if its tokens were too many for the memory.
    """
    if len(plan.sequences) > 1:
        return [token for half in halved_rows(plan) for token in _execute_part(runner, half, failures)]
    if failures[-1].is_out_of_memory and plan.num_tokens > 1:
        first, last = halved_chunk(plan)
        stopped = _execute_part(runner, first, failures)
        return stopped if stopped[0] is not None else _execute_part(runner, last, failures)
    return [SampledToken(token_id=0, error=f"the model failed on this request ({failures[-1].name})")]


def _execute_part(runner: Runner, part: SchedulerOutput, failures: list[StepFailure]) -> list[SampledToken | None]:
    outcome = _attempt(runner, part)
    if isinstance(outcome, StepOutput):
        return outcome.sampled
    failures.append(outcome)
    return _execute_parts(runner, part, failures)
