"""Processes that bring a database to the newest tables, each killed before one of its statements.

`python -m tests.service.conversations.killed_migration PATH_OR_URL together|alone NUMBER...` imports what is needed
once and forks one for each number; it tells how they ended: 0, or less than that for a signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from service.conversations.location import Location
from service.conversations.schema import prepare

NEVER = 1_000_000
"""More statements than there are."""


def run_migrations(location: Location, numbers: Iterable[int], *, is_together: bool = False) -> list[int]:
    """The exit codes of processes that are killed before their statement with that number."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    place = location.postgres_url or str(location.path)
    mode = "together" if is_together else "alone"
    arguments = [sys.executable, "-m", "tests.service.conversations.killed_migration", place, mode]
    done = subprocess.run([*arguments, *map(str, numbers)], env=environ, check=True, capture_output=True)
    return [int(line.removeprefix(b"exit ")) for line in done.stdout.splitlines() if line.startswith(b"exit ")]


def main() -> None:
    """Fork, wait and tell."""
    place, mode, *numbers = sys.argv[1:]
    running: list[int] = []
    for number in numbers:
        running.append(_fork(place, int(number)))
        if mode == "alone":
            _tell(running.pop())
    for pid in running:
        _tell(pid)


def _tell(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.write(1, b"exit %d\n" % os.waitstatus_to_exitcode(status))


def _fork(place: str, number: int) -> int:
    pid = os.fork()
    if pid == 0:
        _migrate(Location(postgres_url=place) if "://" in place else Location(path=Path(place)), number)
        os._exit(0)
    return pid


def _migrate(location: Location, number: int) -> None:
    num_seen = 0

    def look(*args: Any) -> None:
        nonlocal num_seen
        if num_seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        num_seen += 1

    event.listen(Engine, "before_cursor_execute", look)
    prepare(location)


if __name__ == "__main__":
    main()
