"""What each process loads: start-up time, and what can be attacked or fail in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SUPERVISOR = ("service.cli_serve", "service.exposure", "service.supervisor", "service.load_progress", "service.logs")
HTTP = {"litestar", "granian"}
MODEL = {"torch", "transformers", "numba"}
DATABASE = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (SUPERVISOR, HTTP | MODEL | DATABASE),
        (("service.worker",), MODEL | DATABASE),
        (("service.engine_process",), HTTP | MODEL | DATABASE),
    ],
    ids=["supervisor", "worker", "engine before it is launched"],
)
def test_process_does_not_import(modules: tuple[str, ...], absent: set[str]) -> None:
    program = f"import sys, {', '.join(modules)}; print(*sorted(set(sys.modules) & set({sorted(absent)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout.split() == []
