"""Runs the plans of one engine on its runner, one step ahead where the runner can.

With a runner of one step at a time, `advance` executes a plan and returns its tokens. A PipelinedRunner computes one
step while the next is planned: `advance` begins a plan and returns the tokens of the step before it. A plan that fails
is executed again in halves, so that only the rows that raise alone fail. Knows nothing of schedulers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from batching.isolation import Runner, execute_isolated
from batching.step import SchedulerOutput, StepOutput


@runtime_checkable
class PipelinedRunner(Runner, Protocol):
    """Takes the next plan before it has given the tokens of the last; `execute` is for when no step is under way."""

    def launch(self, plan: SchedulerOutput) -> None:
        """Begin a step without waiting for it; at most two are under way.

        Where it raises, nothing of the plan has happened, so that it can be executed again, whole or in parts.
        """
        ...

    def collect(self) -> StepOutput:
        """Wait for the oldest step under way. What it raises cannot be repaired: the device is lost."""
        ...


class StepPipeline:
    """Owner: the runner thread. `log` is called with an event and fields where a step fails."""

    def __init__(self, runner: Runner, log: Callable[..., object]) -> None:
        self._runner = runner
        self._ahead = runner if isinstance(runner, PipelinedRunner) else None
        self._log = log
        self._num_under_way = 0
        self._unbegun: SchedulerOutput | None = None
        """A plan that could not be launched; there is none while the caller has nothing in flight."""

    def advance(self, plan: SchedulerOutput | None) -> StepOutput | None:
        """Begin `plan`, and return the tokens of the oldest step that is over then; None: there is none yet.

        Without a plan, wait for the oldest step.
        """
        if self._ahead is None:
            return None if plan is None else execute_isolated(self._runner, plan, self._log)
        if self._unbegun is not None:
            output = self._execute_unbegun()
            self._launch(self._ahead, plan)
            return output
        had_one = self._num_under_way > 0
        self._launch(self._ahead, plan)
        if had_one:
            self._num_under_way -= 1
            return self._ahead.collect()
        return self._execute_unbegun()

    def _launch(self, runner: PipelinedRunner, plan: SchedulerOutput | None) -> None:
        if plan is None:
            return
        try:
            runner.launch(plan)
        except Exception as error:
            self._log("launch_failed", step_id=plan.step_id, error=repr(error))
            self._unbegun = plan
        else:
            self._num_under_way += 1

    def _execute_unbegun(self) -> StepOutput | None:
        if self._unbegun is None:
            return None
        plan, self._unbegun = self._unbegun, None
        return execute_isolated(self._runner, plan, self._log)
