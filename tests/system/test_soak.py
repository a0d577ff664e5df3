"""Two minutes of mixed load on the real server with a cache that is too small: everything comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ops.soak.clients import Ending
from ops.soak.report import SoakReport
from ops.soak.traffic import Kind
from tests.shape_rules import ROOT

MINUTES = 1.25
"""On top of a warm-up, two looks at the idle server and its start."""
TIMEOUT_S = 600.0


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> SoakReport:
    """What `python -m ops.soak` wrote; it must have found nothing."""
    path = tmp_path_factory.mktemp("soak") / "soak.json"
    command = [sys.executable, "-m", "ops.soak", "--minutes", str(MINUTES), "--interval", "1", "--json", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return msgspec.json.decode(Path(path).read_bytes(), type=SoakReport)


@pytest.mark.slow
def test_nothing_is_kept(report: SoakReport) -> None:
    assert [check for check in report.checks if not check.is_ok] == []
    assert report.is_clean


@pytest.mark.slow
def test_blocks_and_processes_were_looked_at(report: SoakReport) -> None:
    names = {check.name.rpartition(".")[2] for check in report.checks}
    assert "processes" in names
    assert {"free_blocks", "num_free_blocks"} & names


@pytest.mark.slow
def test_every_kind_of_request_finished(report: SoakReport) -> None:
    ends = {kind: report.endings[kind.value] for kind in Kind}
    assert ends.pop(Kind.INVALID)[Ending.REJECTED.value] > 0
    assert [kind for kind, counts in ends.items() if counts[Ending.FINISHED.value] == 0] == []
    assert sum(counts[Ending.ABORTED.value] for counts in ends.values()) > 0


@pytest.mark.slow
def test_cache_was_too_small(report: SoakReport) -> None:
    """Where the server tells of preemptions, there were some."""
    assert report.num_preemptions is None or report.num_preemptions > 0
