"""Whose time the processor's was."""

from __future__ import annotations

import subprocess
import sys
import time

from ops.bench.cpu_shares import LOADER, SERVER, CpuShares, cpu_s_of, format_cpu_shares, role_of

SPIN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(60)"


def test_time_of_the_server_is_told_from_the_loaders() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        try:
            shares = CpuShares(process.pid)
            while cpu_s_of(process.pid) < 0.3:
                time.sleep(0.02)
            cpu_s = shares.read()
        finally:
            process.kill()
    assert set(cpu_s) == {SERVER, LOADER}
    assert 0.1 < cpu_s[SERVER] < 0.5


def test_role_is_read_from_the_command_line_and_a_gone_process_used_nothing() -> None:
    script = "import sys; print(flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", script, "service.worker", "7"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs
        assert role_of(process.pid) == "workers"
    assert role_of(process.pid) == SERVER
    assert cpu_s_of(process.pid) == 0.0


def test_shares_are_printed_as_cores() -> None:
    assert format_cpu_shares({"engine": 90.0, "loader": 45.0}, 180.0).startswith(
        "cores used on average: engine 0.50, loader 0.25; of "
    )
