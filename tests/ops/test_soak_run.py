"""A short soak of a server that leaks and of the same server that does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.soak.command import main
from ops.soak.processes import sample_tree
from ops.soak.run import SoakPlan, SoakTarget, run_soak

SERVER = Path(__file__).parent / "leaky_server.py"
PLAN = SoakPlan(duration_s=1.0, warm_up_s=0.5, num_clients=4, interval_s=0.1, settle_timeout_s=1.0, quiet_s=0.1)


@contextmanager
def running_server(*arguments: str) -> Iterator[SoakTarget]:
    command = [sys.executable, str(SERVER), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            base_url = process.stdout.readline().strip()
            yield SoakTarget(base_url=base_url, pid=process.pid, model="leaky")
        finally:
            process.kill()


async def find_faults(target: SoakTarget) -> list[str]:
    result = await run_soak(target, PLAN, lambda text: None)
    assert len(result.outcomes) > 20
    return [check.name for check in result.checks if not check.is_ok]


async def test_server_that_gives_everything_back_is_clean() -> None:
    with running_server() as target:
        assert await find_faults(target) == []


@pytest.mark.slow
async def test_server_that_keeps_descriptors_is_found_out() -> None:
    with running_server("leak") as target:
        assert await find_faults(target) == [f"file descriptors of {target.pid}, python leaky_server.py leak"]


def test_tree_of_a_process_has_its_figures() -> None:
    with running_server() as target:
        (process,) = sample_tree(target.pid, 0.0).processes
    assert (process.num_threads, process.name[-15:]) == (1, "leaky_server.py")
    assert process.rss_bytes > 5e6
    assert process.num_fds >= 4


def test_process_that_is_gone_has_none() -> None:
    with running_server() as target:
        pid = target.pid
    assert sample_tree(pid, 0.0).processes == []


@pytest.mark.parametrize("arguments", [["--pid", "1"], ["--base-url", "http://127.0.0.1:1/v1"]])
def test_running_server_is_named_by_address_and_process(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "go together" in result.output
