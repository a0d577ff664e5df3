"""The doctor's checks come in their order; what would be of no use any more is skipped, never left out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from contracts.checkup import Checkup, Finding, conclude
from contracts.self_test import KernelReport, SelfTestOrder
from contracts.settings import CatalogSettings, EngineSettings, ServerSettings, Settings
from service.cli import main
from service.terminal.doctor import DoctorOptions, run_checks
from service.terminal.generation_check import Answers
from tests.service.terminal.safetensors_files import write_checkpoint
from tests.service.terminal.test_generation_check import EQUAL, TORCH, Told

NAMES = [
    *("python", "packages", "port", "sockets", "disk", "keys", "model", "hub", "files", "tokenizer", "template"),
    *("memory", "traces", "torch", "tokens", "kernels"),
]
KERNELS = KernelReport(num_used=1, num_from_cache=1, num_compiled=0)
WHOLE = DoctorOptions()
Doctor = Callable[..., dict[str, Finding]]


@pytest.fixture
def orders() -> list[SelfTestOrder]:
    """What the process that computes was asked."""
    return []


@pytest.fixture
def doctor(orders: list[SelfTestOrder]) -> Doctor:
    """Runs all checks with a process that is well, on a free port."""

    @contextmanager
    def start(order: SelfTestOrder) -> Iterator[Answers]:
        orders.append(order)
        yield Told(TORCH, EQUAL, KERNELS)

    def run(options: DoctorOptions = WHOLE, **engine: Any) -> dict[str, Finding]:
        settings = Settings(
            engine=EngineSettings(**engine),
            catalog=CatalogSettings(),
            server=ServerSettings(port=0, conversations_db="none"),
        )
        return {finding.name: finding for finding in run_checks(settings, options, start)}

    return run


def test_embedded_model_is_well(doctor: Doctor, orders: list[SelfTestOrder]) -> None:
    findings = doctor()
    assert list(findings) == NAMES
    assert [name for name, finding in findings.items() if finding.state not in ("ok", "skipped")] == []
    assert len(orders[0].prompts) > 1


def test_quick_doctor_loads_no_model(doctor: Doctor, orders: list[SelfTestOrder]) -> None:
    findings = doctor(DoctorOptions(is_quick=True))
    assert (findings["tokens"].state, findings["kernels"].state, orders[0].prompts) == ("skipped", "skipped", [])


def test_model_with_a_broken_file_is_not_loaded(doctor: Doctor, orders: list[SelfTestOrder], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny")
    (path / "model.safetensors").write_bytes(b"short")
    findings = doctor(model=str(path))
    assert list(findings) == NAMES
    assert (findings["files"].state, findings["tokens"].state, orders[0].prompts) == ("failed", "skipped", [])


def test_model_whose_cache_is_too_small_is_not_loaded(doctor: Doctor, orders: list[SelfTestOrder]) -> None:
    findings = doctor(kv_cache_memory="1MiB")
    assert (findings["memory"].state, orders[0].prompts) == ("failed", [])


def test_model_that_cannot_exist_ends_the_checks(doctor: Doctor) -> None:
    findings = doctor(model="./nowhere")
    assert (list(findings)[-1], findings["model"].state) == ("model", "failed")


def test_exit_code_says_whether_something_failed() -> None:
    bad = Finding(name="a", state="failed", summary="It is bad.")
    warned = Finding(name="b", state="warning", summary="It is odd.")
    assert conclude("doctor", "1", "m", [warned]).is_well
    assert not conclude("doctor", "1", "m", [warned, bad]).is_well


def test_command_prints_json_and_leaves_with_7(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["doctor", "./nowhere", "--port", "0", "--conversations-db", "none", "--json"]
    result = CliRunner().invoke(main, arguments)

    checkup = msgspec.json.decode(result.stdout, type=Checkup)
    assert (result.exit_code, checkup.is_well, checkup.subject) == (7, False, "./nowhere")
    assert checkup.findings[-1].name == "model"


def test_command_imports_no_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It must be able to tell that torch is broken."""

    monkeypatch.chdir(tmp_path)
    code = (
        "import sys; from service.terminal import doctor, generation_check, model_files, places, span_check;"
        "sys.exit('torch' in sys.modules)"
    )
    environ = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
