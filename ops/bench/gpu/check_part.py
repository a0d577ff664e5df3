"""The kernels against their references on the device: the tests that are marked `gpu`, and what became of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile

ROOT = Path(__file__).resolve().parents[3]
FILES = ("test_kernels_on_gpu.py", "test_paged_attention_gpu.py")


def check_kernels(plan: Plan, rows: RowFile) -> None:
    """A row for each file; raises RuntimeError where a test failed."""
    num_failed = 0
    if find_spec("pytest") is None:
        raise RuntimeError("pytest is not installed: pip install pytest pytest-asyncio pytest-timeout")
    for name in FILES:
        passed, failed, skipped = run_tests(ROOT / "tests" / "batching" / "kernels" / name)
        num_failed += failed
        rows.add(name, float(passed), "passed", note=f"{failed} failed, {skipped} skipped")
    if num_failed:
        raise RuntimeError(f"{num_failed} kernel tests failed")


def run_tests(file: Path) -> tuple[int, int, int]:
    """How many passed, failed and were skipped."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        arguments = ["-m", "pytest", str(file), "-m", "gpu", "-q", "--tb=short", f"--junitxml={report}"]
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)
        if not report.exists():
            raise RuntimeError(f"{file.name} wrote no report")
        return read_counts(report)


def read_counts(report: Path) -> tuple[int, int, int]:
    """From a JUnit file."""
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314
    counts = [{key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")} for suite in suites]
    failed = sum(count["failures"] + count["errors"] for count in counts)
    skipped = sum(count["skipped"] for count in counts)
    return sum(count["tests"] for count in counts) - failed - skipped, failed, skipped
