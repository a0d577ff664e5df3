"""The watchdog ends a step that hangs, soon, once, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from batching.step_timer import FIRST_STEP_S, PATIENCE, StepTimer
from batching.watchdog import HUNG_EXIT_CODE, Watchdog

WITHIN_S = 10.0
ONE_POLL_S = 0.6
"""More than two polls of the watchdog."""

HANGING_PROCESS = """
import sys, time
from batching.step_timer import StepTimer
from batching.watchdog import Watchdog
prompt = "a secret prompt"
timer = StepTimer()
with timer:
    pass
Watchdog(timer, limit_s=float(sys.argv[1])).start()
end_s = time.monotonic() + float(sys.argv[2])
with timer:
    print("in the step", flush=True)
    time.sleep(max(0.0, end_s - time.monotonic()))
print("done", flush=True)
"""


class Clock:
    """Moved by the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer(clock: Clock) -> StepTimer:
    """Has seen one step of 0.1 s."""
    timer = StepTimer(clock)
    with timer:
        clock.now_s += 0.1
    return timer


@pytest.fixture
def start(clock: Clock) -> Iterator[Callable[[StepTimer], threading.Event]]:
    """Starts a watchdog with a limit of 4 s; the event says that it called out."""
    started: list[Watchdog] = []

    def begin(timer: StepTimer) -> threading.Event:
        has_called = threading.Event()
        started.append(Watchdog(timer, 4.0, lambda _: has_called.set(), clock=lambda: 0.0))
        started[-1].start()
        return has_called

    yield begin
    for watchdog in started:
        watchdog.stop()


def test_time_between_steps_does_not_count(timer: StepTimer, clock: Clock) -> None:
    clock.now_s += 1e6
    assert timer.elapsed_s == 0.0
    assert not timer.is_overdue(4.0)


def test_step_may_take_the_limit_and_many_times_the_longest_recent_one(timer: StepTimer, clock: Clock) -> None:
    with timer:
        clock.now_s += 4.0 + PATIENCE * 0.1
        assert not timer.is_overdue(4.0)
        clock.now_s += 0.01
        assert timer.is_overdue(4.0)
    assert not timer.is_overdue(4.0)


def test_first_step_has_longer(clock: Clock) -> None:
    timer = StepTimer(clock)
    with timer:
        clock.now_s += FIRST_STEP_S + 4.0
        assert not timer.is_overdue(4.0)
        clock.now_s += 0.01
        assert timer.is_overdue(4.0)


@pytest.mark.parametrize(("warm_up_step_s", "explained_s"), [(0.1, PATIENCE * 0.1), (600.0, FIRST_STEP_S)])
def test_first_step_after_a_warm_up_is_held_to_it(clock: Clock, warm_up_step_s: float, explained_s: float) -> None:
    timer = StepTimer(clock, warm_up_step_s=warm_up_step_s)
    with timer:
        clock.now_s += explained_s + 4.0
        assert not timer.is_overdue(4.0)
        clock.now_s += 0.01
        assert timer.is_overdue(4.0)


class Preparing:
    """A runner that meets a new size."""

    is_preparing = False
    num_prepared = 0


def test_step_of_a_new_size_has_longer_and_says_nothing_of_later_ones(clock: Clock) -> None:
    preparation = Preparing()
    timer = StepTimer(clock, warm_up_step_s=0.01, preparation=preparation)
    with timer:
        preparation.is_preparing, preparation.num_prepared = True, 1
        clock.now_s += FIRST_STEP_S + 3.0
        assert not timer.is_overdue(4.0)
        clock.now_s += 1.1
        assert timer.is_overdue(4.0)
        preparation.is_preparing = False
    with timer:
        clock.now_s += 3.9 + PATIENCE * 0.01
        assert not timer.is_overdue(4.0)
        clock.now_s += 0.2
        assert timer.is_overdue(4.0)


def test_long_step_is_forgotten_after_a_thousand_short_ones(timer: StepTimer, clock: Clock) -> None:
    with timer:
        clock.now_s += 50.0
    for _ in range(1000):
        with timer:
            clock.now_s += 0.001
    with timer:
        clock.now_s += 4.0 + 1.0
        assert timer.is_overdue(4.0)


def test_step_that_raises_is_over(timer: StepTimer, clock: Clock) -> None:
    with pytest.raises(KeyError), timer:
        raise KeyError("a")
    clock.now_s += 1e6
    assert not timer.is_overdue(4.0)


def test_hung_step_is_called_out_once(
    timer: StepTimer, clock: Clock, start: Callable[[StepTimer], threading.Event]
) -> None:
    has_called = start(timer)
    with timer:
        clock.now_s += 10.0
        assert has_called.wait(WITHIN_S)
        has_called.clear()
        assert not has_called.wait(ONE_POLL_S)


def test_steps_that_end_are_never_called_out(
    timer: StepTimer, clock: Clock, start: Callable[[StepTimer], threading.Event]
) -> None:
    has_called = start(timer)
    with timer:
        clock.now_s += 4.0
        assert not has_called.wait(ONE_POLL_S)
    clock.now_s += 1e6
    assert not has_called.wait(ONE_POLL_S)


def hanging_process(limit_s: float, step_s: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING_PROCESS, str(limit_s), str(step_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in the step\n"
    return process


def test_process_ends_and_says_where_it_stood() -> None:
    with hanging_process(limit_s=0.1, step_s=60.0) as process:
        output, errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode == HUNG_EXIT_CODE
    assert "step_hung" in output
    assert 'File "<string>", line 13 in <module>' in errors
    assert "secret" not in output + errors


@pytest.mark.slow
def test_process_that_was_stopped_meanwhile_may_end_its_step() -> None:
    """Stopped for longer than a step may take, as by a pause of the container, then let go on."""
    with hanging_process(limit_s=2.0, step_s=2.75) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, output) == (0, "done\n")
