"""A server under measurement as a child process: its start, its peak memory from /proc, its end."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from service.bench.client import fetch_first_model
from service.bench.connection import ExchangeFailed
from service.bench.loader import Loader
from service.bench.runner import Level
from service.bench.workload import LengthRange, Target, WorkloadSpec

SAMPLE_INTERVAL_S = 0.1
POLL_INTERVAL_S = 0.05
STOP_TIMEOUT_S = 15.0
NUM_LOG_LINES = 30
PROBE_VOCAB_SIZE = 256
"""Ids below this are in every vocabulary."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ServerFailed(Exception):
    """The server ended or did not answer in time; the message has the end of its log."""


def find_free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def read_parents() -> dict[int, int]:
    """Process id to parent id of every process that can be read."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    return parents


def list_tree(root_pid: int, parents: dict[int, int]) -> list[int]:
    """The process and all its descendants."""
    tree = [root_pid]
    for pid in tree:
        tree.extend(child for child, parent in parents.items() if parent == pid)
    return tree


def measure_tree_rss_bytes(root_pid: int) -> int:
    """Resident memory of the process tree; a page shared by two of its processes counts twice."""
    total = 0
    for pid in list_tree(root_pid, read_parents()):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        except OSError:
            continue
    return total


class ServerProcess:
    """Starts when the context is entered, ends with it; `target` is set by `wait_until_answering`.

    `command` is one shell-like string in which {port} is replaced by a free port.
    """

    def __init__(self, name: str, command: str, template: Target) -> None:
        self.name = name
        self.port = find_free_port()
        self.target = msgspec.structs.replace(template, name=name, base_url=f"http://127.0.0.1:{self.port}/v1")
        self.first_answer_s: float | None = None
        """From the start of the process to the end of its first answer of one token."""
        self.peak_rss_bytes = 0
        self._arguments = [part.replace("{port}", str(self.port)) for part in shlex.split(command)]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._has_stopped = threading.Event()
        self._sampler = threading.Thread(target=self._sample_memory, daemon=True)

    def __enter__(self) -> Self:
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_stopped.set()
        self._sampler.join()
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._log.close()

    def wait_until_answering(self, loader: Loader, timeout_s: float) -> Target:
        """Poll until one token is answered; returns the target with its model. Raises ServerFailed."""
        spec = WorkloadSpec(
            prompt_tokens=LengthRange(8, 8), output_tokens=LengthRange(1, 1), vocab_size=PROBE_VOCAB_SIZE
        )
        problem = "nothing answered"
        while time.monotonic() - self._started_s < timeout_s:
            if self._process is None or self._process.poll() is not None:
                raise ServerFailed(f"{self.name} ended while starting:\n{self.read_log_end()}")
            try:
                model = self.target.model or asyncio.run(fetch_first_model(self.target.base_url))
                target = msgspec.structs.replace(self.target, model=model)
                record = loader.run(target, spec, Level(num_requests=1), "first answer").records[0]
                if record.error is None:
                    self.first_answer_s = record.finished_s - self._started_s
                    self.target = target
                    return target
                problem = record.error
            except (ExchangeFailed, OSError) as error:
                problem = str(error)
            time.sleep(POLL_INTERVAL_S)
        raise ServerFailed(f"{self.name} gave no answer in {timeout_s:g} s ({problem}):\n{self.read_log_end()}")

    @property
    def pid(self) -> int:
        """Of the process that was started. Raises ServerFailed outside the context."""
        if self._process is None:
            raise ServerFailed(f"{self.name} was not started")
        return self._process.pid

    def stop(self, timeout_s: float) -> int | None:
        """Send SIGTERM to the process alone, as an init system does; its exit code, or None where it stays."""
        os.kill(self.pid, signal.SIGTERM)
        try:
            return None if self._process is None else self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def read_log_end(self) -> str:
        """The last lines that the server wrote."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode("utf-8", "replace").splitlines()[-NUM_LOG_LINES:])

    def _sample_memory(self) -> None:
        while not self._has_stopped.wait(SAMPLE_INTERVAL_S):
            if self._process is not None:
                self.peak_rss_bytes = max(self.peak_rss_bytes, measure_tree_rss_bytes(self._process.pid))


def build_quire_command(model: str, dtype: str, extra: str = "") -> str:
    """`quire serve` of this checkout or installation, whether or not its script is on the path."""
    entry = "from service.cli import main; main()"
    return (
        f"{shlex.quote(sys.executable)} -c '{entry}' serve {shlex.quote(model)} --port {{port}} --dtype {dtype} {extra}"
    )
