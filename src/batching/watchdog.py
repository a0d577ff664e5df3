"""Ends the engine's process when a step does not end: a thread outside the event loop and outside the runner."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

import structlog

from batching.step_timer import StepTimer

HUNG_EXIT_CODE = 70
_POLL_S = 0.25
_STOOD_STILL_S = 2.0
"""Between two polls, no busy machine needs so long: this process was stopped."""

log = structlog.get_logger("quire.engine")


def end_process(timer: StepTimer) -> None:
    """Write where every thread stands (functions and lines, no values) and leave at once; the supervisor restarts."""
    log.error("step_hung", elapsed_s=round(timer.elapsed_s, 1))
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(HUNG_EXIT_CODE)


class Watchdog:
    """Calls `on_hang` once when the step in flight is overdue. Owner: whoever started it; ends with `stop`.

    A process that was stopped and goes on has time to end its step: the clock went on without it.
    """

    def __init__(
        self,
        timer: StepTimer,
        limit_s: float,
        on_hang: Callable[[StepTimer], None] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timer = timer
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="quire-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        began_s = self._clock()
        excused_until_s = began_s
        while not self._stopped.wait(_POLL_S):
            now_s = self._clock()
            if now_s - began_s > _STOOD_STILL_S:
                excused_until_s = now_s + self._limit_s
            began_s = now_s
            if now_s >= excused_until_s and self._timer.is_overdue(self._limit_s):
                self._on_hang(self._timer)
                return
