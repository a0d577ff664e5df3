"""The self-test finds equal tokens equal and a wrong one wrong; what libraries print stays out of its lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from batching import self_test
from batching.offline import OfflineEngine
from batching.self_test import common_len, run_self_test
from contracts.self_test import (
    EqualityReport,
    KernelReport,
    SelfTestFailed,
    SelfTestMessage,
    SelfTestOrder,
    TorchFacts,
)
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import TinyModels

NUM_TOKENS = 6


@pytest.fixture
def order(tiny_models: TinyModels) -> SelfTestOrder:
    reference = tiny_models.reference("llama")
    settings = engine_settings(reference.path)
    return SelfTestOrder(settings=settings, prompts=reference.prompts, max_tokens=NUM_TOKENS)


def messages_of(order: SelfTestOrder) -> list[SelfTestMessage]:
    told: list[SelfTestMessage] = []
    run_self_test(order, told.append)
    return told


def equality_of(order: SelfTestOrder) -> EqualityReport:
    (report,) = [message for message in messages_of(order) if isinstance(message, EqualityReport)]
    return report


def test_both_sides_agree_in_one_batch(order: SelfTestOrder, tiny_models: TinyModels) -> None:
    facts, report, kernels = messages_of(order)
    assert isinstance(facts, TorchFacts)
    assert isinstance(report, EqualityReport)
    assert isinstance(kernels, KernelReport)
    assert (report.num_equal_tokens, report.differences) == (len(order.prompts) * NUM_TOKENS, [])
    assert report.mean_batch_size > 1


def test_wrong_token_is_found_at_its_place(order: SelfTestOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = self_test.generate_batched

    def lie(engine: OfflineEngine, order: SelfTestOrder) -> list[list[int]]:
        outputs = generate(engine, order)
        outputs[1][2] = (outputs[1][2] + 1) % engine.info.vocab_size
        return outputs

    monkeypatch.setattr(self_test, "generate_batched", lie)
    report = equality_of(order)
    (difference,) = report.differences
    assert (difference.prompt_index, difference.position) == (1, 2)
    assert not difference.is_tie
    assert report.num_equal_tokens == report.num_tokens - (NUM_TOKENS - 2)


def test_output_that_is_too_short_is_a_difference(order: SelfTestOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = self_test.generate_batched
    monkeypatch.setattr(
        self_test, "generate_batched", lambda engine, order: [output[:3] for output in generate(engine, order)]
    )
    assert [difference.is_tie for difference in equality_of(order).differences] == [False] * len(order.prompts)


def test_order_without_prompts_loads_nothing() -> None:
    order = SelfTestOrder(settings=engine_settings(Path("/nowhere")), prompts=[], max_tokens=1)
    (facts,) = messages_of(order)
    assert isinstance(facts, TorchFacts)


@pytest.mark.slow
def test_process_tells_a_missing_model_in_its_last_line() -> None:
    order = SelfTestOrder(settings=engine_settings(Path("/nowhere")), prompts=[[1]], max_tokens=1)
    command = [sys.executable, "-P", "-m", "batching.self_test"]
    environ = {"PYTHONPATH": ":".join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, input=msgspec.json.encode(order), capture_output=True, env=environ, check=True)
    first, last = (msgspec.json.decode(line, type=SelfTestMessage) for line in done.stdout.splitlines())
    assert isinstance(first, TorchFacts)
    assert isinstance(last, SelfTestFailed)
    assert "/nowhere" in last.message


@pytest.mark.parametrize(
    ("expected", "got", "length"), [([1, 2], [1, 2], 2), ([1, 2], [1, 3], 1), ([1, 2], [1], 1), ([], [1], 0)]
)
def test_common_beginning(expected: list[int], got: list[int], length: int) -> None:
    assert common_len(expected, got) == length
