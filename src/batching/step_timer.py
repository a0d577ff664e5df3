"""How long the step in flight has run, and how long it may: written by the engine's loop, read by a watchdog thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

PATIENCE = 20.0
"""A step may take so many times the longest of the recent ones, and the limit on top."""
FIRST_STEP_S = 60.0
"""Allowed for steps before any has ended, and the most that warm-up explains: kernels may still be compiled. Also for
steps of a size that their runner meets for the first time."""
_DECAY = 0.99
"""Per step: a long step is forgotten after a few hundred."""


class Preparation(Protocol):
    """What a runner does once before steps of a new size can be quick: step_graphs.StepGraphs."""

    is_preparing: bool
    num_prepared: int


class StepTimer:
    """A context around each step. Life cycle: idle -> running -> idle ..."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        warm_up_step_s: float | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        self._clock = clock
        self._preparation = preparation
        self._num_prepared = 0
        self._began_s: float | None = None
        self._longest_s = None if warm_up_step_s is None else min(warm_up_step_s, FIRST_STEP_S / PATIENCE)

    def __enter__(self) -> None:
        self._num_prepared = 0 if self._preparation is None else self._preparation.num_prepared
        self._began_s = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_usual = self._preparation is None or self._preparation.num_prepared == self._num_prepared
        if self._began_s is not None and is_usual:
            self._longest_s = max(self._clock() - self._began_s, (self._longest_s or 0.0) * _DECAY)
        self._began_s = None

    @property
    def elapsed_s(self) -> float:
        """Of the step in flight; 0 between steps."""
        began_s = self._began_s
        return 0.0 if began_s is None else self._clock() - began_s

    def is_overdue(self, limit_s: float) -> bool:
        """The step in flight runs for longer than its work explains."""
        expected_s = FIRST_STEP_S if self._longest_s is None else PATIENCE * self._longest_s
        if self._preparation is not None and self._preparation.is_preparing:
            expected_s = max(expected_s, FIRST_STEP_S)
        return self.elapsed_s > limit_s + expected_s
