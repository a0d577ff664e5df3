"""`quire serve` as a process of its own, with a tiny random model: started, watched, and ended by force if need be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.batching.tiny_models import make_config, make_model, save
from tests.fakes import VOCAB_SIZE, write_byte_model

START_TIMEOUT_S = 90.0
_POLL_S = 0.05


def write_tiny_model(directory: Path) -> Path:
    """A random two-layer Llama with one token per byte and a chat template."""
    return save(make_model(make_config("llama", vocab_size=VOCAB_SIZE), seed=0), write_byte_model(directory))


class QuireProcess:
    """One running command. Owner: the context of `running_quire`."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8")

    @property
    def errors(self) -> str:
        return self._errors.read_text("utf-8")

    @property
    def address(self) -> str:
        """Where the server listens, from its ready panel, without a path."""
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", self.output)
        if found is None:
            raise RuntimeError(f"no address in the output:\n{self.output}")
        return found.group()

    def wait_for(self, text: str) -> None:
        """Return when the output or the errors hold `text`; RuntimeError when the process ends or time runs out."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while text not in self.output + self.errors:
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{text!r} did not appear:\n{self.output}\n{self.errors}")
            time.sleep(_POLL_S)

    def stop(self, signum: signal.Signals, timeout_s: float) -> int:
        """Send the signal and return the exit code; TimeoutExpired where the process stays."""
        self.process.send_signal(signum)
        return self.process.wait(timeout_s)


@contextmanager
def running_quire(directory: Path, *arguments: str) -> Iterator[QuireProcess]:
    """Start `quire` with the arguments in a process group of its own, its streams in files of `directory`."""
    output, errors = directory / "stdout", directory / "stderr"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", "from service.cli import main; main(prog_name='quire')", *arguments],
            stdout=out,
            stderr=err,
            cwd=directory,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    try:
        yield QuireProcess(process, output, errors)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
