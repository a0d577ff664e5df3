"""A run of ops.bench.gpu: its parts, their order, and that none spoils another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from ops.bench.gpu.__main__ import CHOICES, Options, Report, list_parts, make_plan, run_part, run_parts
from ops.bench.gpu.check_part import read_counts
from ops.bench.gpu.plan import TOY_SIZES

ROOT = Path(__file__).resolve().parents[2]


def make_options(**changes: object) -> Options:
    options = Options(
        model="toy",
        device="cpu",
        parts="",
        check=False,
        tune=False,
        kv_dtype="auto",
        torch_ops=False,
        time_limit=60.0,
        batched_tokens=None,
        requests=None,
        contexts=None,
        batches=None,
        checkpoints=None,
        json=None,
    )
    return msgspec.structs.replace(options, **changes)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (make_options(), ["machine"]),
        (make_options(check=True), ["machine", "check"]),
        (make_options(parts="attention"), ["machine", "attention"]),
        (make_options(parts="http, offline"), ["machine", "checkpoint", "offline", "http"]),
        (make_options(parts=",".join(CHOICES)), ["machine", "checkpoint", *CHOICES[1:]]),
    ],
    ids=["none", "check", "attention", "served", "all"],
)
def test_parts_run_after_the_machine_and_what_they_need(options: Options, parts: list[str]) -> None:
    assert list_parts(options) == parts


def test_unknown_part_is_named() -> None:
    with pytest.raises(click.UsageError, match="'offlin'"):
        list_parts(make_options(parts="machine,offlin"))


def test_options_change_the_sizes_of_the_model() -> None:
    plan = make_plan(make_options(contexts="64,96", batches="2", requests=3, batched_tokens=99), Path("here"))
    assert (plan.sizes.contexts, plan.sizes.batches, plan.sizes.batched_tokens) == ((64, 96), (2,), 99)
    assert plan.sizes.workload.num_requests == 3
    assert plan.sizes.workload.longest == TOY_SIZES.workload.longest


def test_part_that_fails_is_told_and_the_next_one_runs(tmp_path: Path) -> None:
    _, rows, failures = run_parts(["no such part", "machine"], make_plan(make_options(), tmp_path), tmp_path)
    assert failures == ["no such part: failed with exit status 2"]
    assert {row.part for row in rows} == {"machine"}


def test_part_is_stopped_when_its_time_is_up(tmp_path: Path) -> None:
    plan = make_plan(make_options(time_limit=0.05), tmp_path)
    assert run_part("machine", plan, tmp_path, tmp_path / "rows") == "stopped after its 0.05 s"


@pytest.mark.slow
def test_cache_type_that_is_refused_is_skipped_with_the_reason(tmp_path: Path) -> None:
    plan = make_plan(make_options(kv_dtype="fp8"), tmp_path)
    _, rows, failures = run_parts(["checkpoint", "stream"], plan, tmp_path)
    assert failures == []
    assert rows[-1].value is None
    assert rows[-1].note.startswith("skipped: a cache of fp8 is refused")


def test_counts_of_a_test_report_are_read(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>')
    assert read_counts(report) == (3, 3, 3)


@pytest.mark.slow
def test_toy_run_fills_the_table_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "ops.bench.gpu", "--model", "toy", "--device", "cpu", "--json", str(out)]
    parts = ["--parts", "attention,offline,stream,start,http,transformers", "--time-limit", "120"]
    finished = subprocess.run([*command, *parts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report = msgspec.json.decode(out.read_bytes(), type=Report)
    assert report.failures == []
    measured = {row.part for row in report.rows if row.value is not None}
    assert measured == {"machine", "checkpoint", "attention", "offline", "stream", "start", "http", "transformers"}
    assert "| offline | 6 requests at once |" in finished.stdout
