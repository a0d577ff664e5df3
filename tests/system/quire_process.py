"""`quire serve` as a process of its own, with a tiny random model: started, watched, and ended by force if need be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.batching.tiny_models import make_config, make_model, save
from tests.fakes import VOCAB_SIZE, write_byte_model
from tests.system.process_tree import processes_of

START_TIMEOUT_S = 90.0
LEFT_WITHIN_S = 5.0
READY = "Quire is ready"
CLI = ("-c", "from service.cli import main; main(prog_name='quire')")
_POLL_S = 0.05


def write_tiny_model(directory: Path, **overrides: Any) -> Path:
    """A random two-layer Llama with one token per byte and a chat template; `overrides` change its config."""
    config = make_config("llama", vocab_size=VOCAB_SIZE, **overrides)
    return save(make_model(config, seed=0), write_byte_model(directory))


class QuireProcess:
    """One running command. Owner: the context of `running_quire`."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process = process
        self.temporary = directory / "t"
        """Its TMPDIR: the engine's socket lies below."""
        self._output = directory / "stdout"
        self._errors = directory / "stderr"

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8")

    @property
    def errors(self) -> str:
        return self._errors.read_text("utf-8")

    @property
    def address(self) -> str:
        """Where the server listens, from its ready panel, without a path."""
        found = re.search(r"https?://127\.0\.0\.1:[0-9]+", self.output)
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

    def pids(self, module: str = "") -> list[int]:
        """The processes of this run whose command line names the module."""
        return [pid for pid, command in processes_of(self.temporary).items() if module in command]

    @property
    def engine_pid(self) -> int:
        (pid,) = set(self.pids()) - {self.process.pid, *self.worker_pids}
        return pid

    @property
    def worker_pids(self) -> list[int]:
        return self.pids("service.worker")

    @property
    def socket_directories(self) -> list[Path]:
        """Private directories that exist now."""
        return list(self.temporary.glob("quire-*"))

    def wait_until_nothing_is_left(self) -> None:
        """Return when no process and no socket's directory exists; AssertionError after LEFT_WITHIN_S."""
        deadline_s = time.monotonic() + LEFT_WITHIN_S
        while self.pids() or self.socket_directories:
            assert time.monotonic() < deadline_s, (processes_of(self.temporary), self.socket_directories)
            time.sleep(_POLL_S)

    def stop(self, signum: signal.Signals, timeout_s: float) -> int:
        """Send the signal and return the exit code; TimeoutExpired where the process stays."""
        self.process.send_signal(signum)
        return self.process.wait(timeout_s)


@contextmanager
def running_quire(
    directory: Path, *arguments: str, python: tuple[str, ...] = CLI, environ: Mapping[str, str] | None = None
) -> Iterator[QuireProcess]:
    """Start `quire` with the arguments in a process group of its own, its streams in files of `directory`.

    `python` is what the interpreter runs instead of the command itself; `environ` is added to this process's variables.
    """
    (directory / "t").mkdir(exist_ok=True)
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, *python, *arguments],
            stdout=out,
            stderr=err,
            cwd=directory,
            start_new_session=True,
            env=_environment(directory / "t") | dict(environ or {}),
        )
    quire = QuireProcess(process, directory)
    try:
        yield quire
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        quire.wait_until_nothing_is_left()


def _environment(temporary: Path) -> dict[str, str]:
    path = os.pathsep.join(path for path in sys.path if path)
    inherited = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    return inherited | {"PYTHONPATH": path, "TMPDIR": str(temporary)}
