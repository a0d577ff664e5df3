"""What the process that computes says, or its death, becomes a finding; a wrong token is a failure, a tie is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from contracts.errors import ModelNotUsable
from contracts.model_catalog import ModelProfile
from contracts.self_test import Difference, EqualityReport, KernelReport, SelfTestOrder, TorchFacts
from contracts.settings import EMBEDDED_MODEL, EngineSettings
from service.terminal.examination import examine
from service.terminal.generation_check import (
    MAX_TOKENS,
    TEXTS,
    SelfTest,
    check_kernels,
    check_tokens,
    check_torch,
    make_order,
)

_T = TypeVar("_T")
ORDER = SelfTestOrder(settings=EngineSettings(), prompts=[], max_tokens=1)
TORCH = TorchFacts(
    version="2.13.0",
    cuda_build=None,
    num_gpus=0,
    gpu_name=None,
    device="cpu",
    cpu_capability="AVX2",
    num_cores=2,
)
EQUAL = EqualityReport(
    num_prompts=2,
    num_tokens=32,
    num_equal_tokens=32,
    differences=[],
    mean_batch_size=2.0,
    dtype="float32",
    forward="FusedForward",
    reference_s=1.0,
    load_s=1.0,
    engine_s=0.5,
)


class Told:
    """Answers as a test wants."""

    def __init__(self, *messages: TorchFacts | EqualityReport | KernelReport) -> None:
        self._messages = messages

    def find(self, kind: type[_T]) -> _T:
        for message in self._messages:
            if isinstance(message, kind):
                return message
        raise ModelNotUsable("There is none.")


def difference(gap: float) -> Difference:
    return Difference(prompt_index=1, position=4, expected_token_id=7, token_id=9, logit_gap=gap, tolerance=0.01)


def equality(**values: Any) -> Told:
    return Told(msgspec.structs.replace(EQUAL, **values))


def test_equal_tokens_are_well() -> None:
    finding = check_tokens(equality())
    assert (finding.state, finding.evidence["tokens_per_s"]) == ("ok", 64.0)
    assert "32 of 32 tokens equal" in finding.summary


def test_wrong_token_fails_with_its_place() -> None:
    finding = check_tokens(equality(num_equal_tokens=20, differences=[difference(2.5)]))
    assert finding.state == "failed"
    assert "request 2 gives token 9 at place 5 where transformers gives 7" in finding.summary
    assert "--dtype float32" in (finding.remedy or "")


def test_tie_is_told_and_no_failure() -> None:
    finding = check_tokens(equality(num_equal_tokens=20, differences=[difference(0.001)]))
    assert (finding.state, "1 request parts at a tie" in finding.summary) == ("ok", True)


def test_wrong_token_beside_a_tie_fails() -> None:
    finding = check_tokens(equality(num_equal_tokens=20, differences=[difference(0.001), difference(1.0)]))
    assert finding.state == "failed"


def test_torch_on_a_cpu_is_well() -> None:
    finding = check_torch(Told(TORCH), lambda: None)
    assert (finding.state, finding.evidence["num_cores"]) == ("ok", 2)


def test_gpu_that_torch_does_not_see_is_a_warning() -> None:
    finding = check_torch(Told(TORCH), lambda: 1)
    assert (finding.state, "CUDA" in (finding.remedy or "")) == ("warning", True)


def test_wanted_gpu_that_is_not_there_fails() -> None:
    finding = check_torch(Told(msgspec.structs.replace(TORCH, device="cuda")), lambda: None)
    assert (finding.state, "--device cpu" in (finding.remedy or "")) == ("failed", True)


def test_gpu_is_named() -> None:
    gpu = msgspec.structs.replace(TORCH, device="cuda", num_gpus=1, gpu_name="H200", cuda_build="12.9")
    assert "on H200" in check_torch(Told(gpu)).summary
    assert check_kernels(Told(gpu)).state == "skipped"


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        (KernelReport(num_used=10, num_from_cache=10, num_compiled=0), "ok", "from the cache on disk"),
        (KernelReport(num_used=10, num_from_cache=2, num_compiled=8), "ok", "8 were compiled just now"),
        (KernelReport(num_used=0, num_from_cache=0, num_compiled=0, problem="no numba"), "warning", "no numba"),
    ],
)
def test_kernels(report: KernelReport, state: str, words: str) -> None:
    finding = check_kernels(Told(TORCH, report))
    assert (finding.state, words in finding.summary) == (state, True)


def test_order_has_the_texts_in_the_models_own_tokens() -> None:
    profile = ModelProfile(alias="pico", model=EMBEDDED_MODEL, max_model_len=32)
    order = make_order(profile, EngineSettings(), is_loading=True)
    assert len(order.prompts) == len(TEXTS)
    assert max(map(len, order.prompts)) == 32 - MAX_TOKENS
    assert make_order(profile, EngineSettings(), is_loading=False).prompts == []


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands for the module that computes; `python -m` finds it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    return tmp_path / "computes.py"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('libcudart.so.12: cannot open shared object file')", "cannot open shared object file"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory ran out"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
        ("""print('{"type":"failed","message":"No such layer. Take another."}')""", "No such layer."),
    ],
)
def test_process_that_ends_early_is_a_failure_that_says_why(module: Path, code: str, words: str) -> None:
    module.write_text(code)
    with SelfTest(ORDER, 1.0, "computes") as test:
        finding = examine("torch", lambda: check_torch(test))
    assert (finding.state, words in f"{finding.summary} {finding.remedy}") == ("failed", True)


def test_messages_are_found_in_any_order(module: Path) -> None:
    lines = [msgspec.json.encode(message).decode() for message in (TORCH, EQUAL)]
    module.write_text("import sys; sys.stdin.read()\n" + "\n".join(f"print({line!r})" for line in lines))
    with SelfTest(ORDER, 20.0, "computes") as test:
        assert test.find(EqualityReport) == EQUAL
        assert test.find(TorchFacts) == TORCH
