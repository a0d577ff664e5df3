"""Every kernel compiles to the machine code of an H200, on a machine without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")


@pytest.mark.slow
def test_every_kernel_compiles_for_every_launch_of_the_tables(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}

    ran = subprocess.run(
        [sys.executable, "-m", "tests.batching.kernels.compile_offline"],
        env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr[-4000:]
    compiled = {line.partition(":")[0] for line in ran.stdout.splitlines() if line.endswith("shared")}
    assert f"{len(compiled)} kernels" in ran.stdout
