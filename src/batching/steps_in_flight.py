"""The steps that were planned and are not committed, oldest first, and the blocks that must outlive them. Pure."""

from __future__ import annotations

from collections import deque

from batching.step import SchedulerOutput


class StepsInFlight:
    """Owner: the Scheduler. Life of a step: begin -> (hold, as often as blocks are given up) -> end."""

    def __init__(self) -> None:
        self._plans: deque[SchedulerOutput] = deque()
        self._held: deque[list[int]] = deque()
        """For each step the blocks that are free once it is over."""

    def __len__(self) -> int:
        return len(self._plans)

    @property
    def oldest(self) -> SchedulerOutput:
        """The step that ends next; IndexError without one."""
        return self._plans[0]

    @property
    def held_block_ids(self) -> list[int]:
        """What is held for any of the steps."""
        return [block_id for held in self._held for block_id in held]

    def begin(self, plan: SchedulerOutput) -> None:
        self._plans.append(plan)
        self._held.append([])

    def hold(self, block_ids: list[int]) -> None:
        """Keep these until the newest step is over: any of the steps may still read or write them."""
        self._held[-1] += block_ids

    def end(self) -> tuple[SchedulerOutput, list[int]]:
        """The oldest step, and the blocks that were held for it; IndexError without one."""
        return self._plans.popleft(), self._held.popleft()

    def forget_all(self) -> None:
        self._plans.clear()
        self._held.clear()
