"""A PostgreSQL of the tests' own, started where its programs are installed; knows nothing of Quire.

It listens on a port of the loopback only, believes everybody, and flushes nothing: what it holds ends with it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 30.0
_PR_SET_PDEATHSIG = 1
_UNPRIVILEGED = "postgres"
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
}


def find_programs() -> Path | None:
    """The directory of `initdb` and `postgres`; None where they are not installed."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve()] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def why_none() -> str | None:
    """What keeps the tests from starting a server; None where nothing does."""
    if importlib.util.find_spec("asyncpg") is None:
        return "asyncpg is not installed"
    if find_programs() is None:
        return "no PostgreSQL is installed (no initdb)"
    return None


class PostgresServer:
    """Owner of one data directory and of the process on it, which can be stopped and started."""

    def __init__(self, directory: Path) -> None:
        programs = find_programs()
        if programs is None:
            raise FileNotFoundError("initdb")
        self._programs = programs
        self._directory = directory
        self._data = directory / "data"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL does not run as root.
        self._identity: dict[str, Any] = {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED} if os.geteuid() == 0 else {}
        if self._identity:
            shutil.chown(directory, _UNPRIVILEGED, _UNPRIVILEGED)

    @property
    def url(self) -> str:
        """As LLM_CONVERSATIONS_URL takes it."""
        return f"postgresql://quire@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        """Make the data directory."""
        arguments = ["--auth=trust", "--username=quire", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"]
        self._run("initdb", *arguments, str(self._data))

    def start(self) -> None:
        """Return when it takes connections."""
        options = [text for name, value in _OPTIONS.items() for text in ("-c", f"{name}={value}")]
        place = ["-p", str(self._port), "-k", str(self._directory)]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *place, *options],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (it calls one function of libc)
                **self._identity,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        ready = f"-h 127.0.0.1 -p {self._port} -q".split()
        while subprocess.run([str(self._programs / "pg_isready"), *ready], check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self._directory / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self, signum: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it with its connections; SIGQUIT is a crash, after which its start recovers."""
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            check=False,
            capture_output=True,
            cwd=self._directory,
            **self._identity,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stderr.decode()}")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """An empty server; `why_none` says whether there can be one."""
    with tempfile.TemporaryDirectory(prefix="quire-pg-") as directory:
        server = PostgresServer(Path(directory))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _end_with_parent() -> None:
    """Tests that are killed cannot stop it: then Linux does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
