"""S35 at run time: while a chat is served, nothing of ours loads what can run code; the static gate is test_shape."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

import msgspec
import pytest

OURS = {"contracts", "batching", "service"}
CACHED_KERNELS = "numba"
"""Reads the kernels that it compiled on this machine itself; it has no other format."""


@functools.cache
def report_of(kind: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run(
        [sys.executable, "-m", "tests.system.unpickling_spy", kind], env=environment, capture_output=True, check=True
    )
    report: dict[str, Any] = msgspec.json.decode(run.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("kind", ["fake", pytest.param("real", marks=pytest.mark.slow)])
def test_nothing_of_ours_loads_code_from_data_while_a_chat_is_served(kind: str) -> None:
    report = report_of(kind)
    assert report["status"] == 200
    assert [pair for pair in report["importers"] if pair[0].partition(".")[0] in OURS] == []
    callers = {caller.partition(".")[0] for caller, _ in report["callers"]}
    assert callers <= ({CACHED_KERNELS} if kind == "real" else set())


@pytest.mark.slow
def test_the_spy_sees_imports_and_calls() -> None:
    assert ["multiprocessing.reduction", "pickle"] in report_of("real")["importers"]
