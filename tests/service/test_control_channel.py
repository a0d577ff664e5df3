"""A child hears its supervisor, says that it lives, and ends with it, whatever it is doing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from contracts.frames import (
    BEAT_S,
    Alive,
    Drain,
    FrameReader,
    LaunchWorker,
    Message,
    Progress,
    SupervisorBound,
    encode_frame,
)
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.model_state import ModelState, ModelTable
from contracts.settings import Settings
from service.control_channel import SUPERVISOR_GONE_EXIT_CODE

GONE_WITHIN_S = 3.0
PATIENCE_S = 20.0
CATALOG = ModelCatalog(profiles=(ModelProfile(alias="m", model="m"),), default_alias="m")
TABLE = ModelTable(default_alias="m", models=(ModelState(alias="m"),))
LAUNCH = encode_frame(LaunchWorker(Settings(), "/directory", "127.0.0.1", CATALOG, TABLE))

CHILD = """
import asyncio, sys, time
from contracts.frames import Progress
from service import control_channel

channel = control_channel.ControlChannel(int(sys.argv[1]))
mode, beat_s = sys.argv[2], float(sys.argv[3])
control_channel.BEAT_S = beat_s
launch = channel.receive_launch()

def handle(message):
    channel.send(Progress(f"{type(message).__name__} {message.delay_s:g}", None))

def tell():
    print("gone", flush=True)
    if mode == "failing":
        raise FileNotFoundError("another child was quicker")

async def main():
    channel.listen(asyncio.get_running_loop(), handle, tell)
    channel.send(Progress(type(launch).__name__, None))
    if mode == "blocked":
        time.sleep(60)
    await asyncio.sleep(1 if mode == "short" else 60)
    print("done", flush=True)

asyncio.run(main())
"""


class Child:
    """A process with a ControlChannel, and the supervisor's end of its line."""

    def __init__(self, process: subprocess.Popen[str], line: socket.socket) -> None:
        self.process = process
        self.line = line
        self._reader = FrameReader(SupervisorBound)
        self._heard: list[Message] = []

    def hear(self) -> Message:
        """The next message."""
        while not self._heard:
            data = self.line.recv(65536)
            assert data
            self._heard = self._reader.feed(data)
        return self._heard.pop(0)

    def hear_progress(self) -> str:
        """What the next message that is no beat says."""
        while isinstance(message := self.hear(), Alive):
            pass
        assert isinstance(message, Progress)
        return message.stage


@contextmanager
def running_child(mode: str, beat_s: float = BEAT_S) -> Iterator[Child]:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(theirs.fileno()), mode, str(beat_s)],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        with process:
            yield Child(process, ours)
            process.kill()


def test_launch_and_what_comes_with_it_arrive_in_order() -> None:
    with running_child("idle") as child:
        child.line.sendall(LAUNCH + encode_frame(Drain(1.0, 0.0)) + encode_frame(Drain(2.0, 0.0)))
        assert [child.hear_progress() for _ in range(3)] == ["LaunchWorker", "Drain 1", "Drain 2"]
        child.line.sendall(encode_frame(Drain(3.0, 0.0)))
        assert child.hear_progress() == "Drain 3"


def test_child_beats() -> None:
    with running_child("idle") as child:
        child.line.sendall(LAUNCH)
        child.hear_progress()
        assert child.hear() == Alive()
        began_s = time.monotonic()
        assert child.hear() == Alive()
        assert time.monotonic() - began_s < 4 * BEAT_S


def test_child_whose_loop_stands_does_not_beat() -> None:
    with running_child("blocked") as child:
        child.line.sendall(LAUNCH)
        child.hear_progress()
        child.line.settimeout(3 * BEAT_S)
        with pytest.raises(TimeoutError):
            child.hear()


@pytest.mark.parametrize("mode", ["idle", "blocked", "failing"])
def test_child_ends_with_its_supervisor(mode: str) -> None:
    with running_child(mode) as child:
        child.line.sendall(LAUNCH)
        child.hear_progress()
        child.line.close()
        output, _ = child.process.communicate(timeout=GONE_WITHIN_S)
        assert (child.process.returncode, output) == (SUPERVISOR_GONE_EXIT_CODE, "gone\n")


def test_child_whose_supervisor_goes_before_the_launch_ends() -> None:
    with running_child("idle") as child:
        child.line.close()
        assert child.process.wait(PATIENCE_S) == SUPERVISOR_GONE_EXIT_CODE


def test_supervisor_that_speaks_another_language_counts_as_gone() -> None:
    with running_child("idle") as child:
        child.line.sendall(LAUNCH)
        child.hear_progress()
        child.line.sendall(b"\xff" * 64)
        output, _ = child.process.communicate(timeout=GONE_WITHIN_S)
        assert (child.process.returncode, output) == (SUPERVISOR_GONE_EXIT_CODE, "gone\n")


def test_supervisor_that_does_not_read_never_stops_the_childs_loop() -> None:
    """As while it is stopped: beats are left out, and nothing waits for it."""
    with running_child("short", beat_s=0.001) as child:
        child.line.sendall(LAUNCH)
        output, _ = child.process.communicate(timeout=PATIENCE_S)
        assert (child.process.returncode, output) == (0, "done\n")
