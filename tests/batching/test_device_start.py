"""Operations of a device serve where they run and agree; the lean pass where it agrees; else something that does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from batching.device_forward import GenericDeviceForward
from batching.device_llama import DeviceLlama
from batching.device_ops import DeviceStep, TorchOps
from batching.device_runner import DeviceRunner
from batching.device_start import select_ops
from batching.engine import EngineCore, build_engine
from batching.model_loader import no_progress
from batching.model_runner import ModelRunner
from tests.batching.real_engine import engine_settings, fresh_scheduler, greedy_request, run_all
from tests.batching.tiny_models import Reference, TinyModels


class WrongAttention(TorchOps):
    """Says nothing."""

    is_capturable = True

    def attend(self, *args: Any) -> torch.Tensor:
        return torch.zeros_like(super().attend(*args))


class BrokenAttention(TorchOps):
    """Gives no numbers, so that nothing that it is compared with is larger or smaller."""

    def attend(self, *args: Any) -> torch.Tensor:
        return torch.full_like(super().attend(*args), float("nan"))


class ForgetfulInput(TorchOps):
    """Gives every token the same position."""

    def build_inputs(self, *args: Any) -> None:
        super().build_inputs(*args)
        args[2].positions.zero_()


class NoKernels(TorchOps):
    """Cannot be compiled here."""

    def build_inputs(self, *args: Any) -> None:
        raise RuntimeError("no C compiler")


class NoSampler(TorchOps):
    """Shows only in a whole step that it cannot be compiled."""

    def sample(self, *args: Any) -> None:
        raise RuntimeError("out of registers")


def start(path: Path, ops: TorchOps) -> EngineCore:
    return build_engine(engine_settings(path, block_size=4, max_model_len=128), no_progress, ops)


def says_what_is_right(core: EngineCore, reference: Reference) -> bool:
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    outcome = run_all(fresh_scheduler(core), core.runner, requests)
    return [outcome.text(request.request_id) for request in requests] == reference.outputs


@pytest.mark.parametrize(
    "ops",
    [WrongAttention(), BrokenAttention(), ForgetfulInput(), NoKernels(), NoSampler()],
    ids=lambda ops: type(ops).__name__,
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_operations_that_fail_or_disagree_give_way(tiny_models: TinyModels, family: str, ops: TorchOps) -> None:
    reference = tiny_models.reference(family)
    with structlog.testing.capture_logs() as logs:
        core = start(reference.path, ops)
    assert type(core.runner) is ModelRunner
    assert [entry["event"] for entry in logs if entry["event"].startswith("device_operations")]
    assert says_what_is_right(core, reference)


def test_a_lean_pass_that_disagrees_gives_way(tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = tiny_models.reference("llama")

    def wrong(self: DeviceLlama, step: DeviceStep) -> torch.Tensor:
        return torch.ones(step.inputs.logit_rows.shape[0], 128)

    monkeypatch.setattr(DeviceLlama, "__call__", wrong)
    core = start(reference.path, TorchOps())
    assert isinstance(core.runner, DeviceRunner)
    assert core.forward_name == GenericDeviceForward.__name__
    assert says_what_is_right(core, reference)


def test_the_lean_pass_frees_the_model_and_keeps_no_second_copy(tiny_models: TinyModels) -> None:
    core = start(tiny_models.reference("llama").path, TorchOps())
    runner: Any = core.runner
    weights = [layer.qkv._weight for layer in runner._forward._layers]
    assert all(weight.untyped_storage().nbytes() == weight.numel() * 4 for weight in weights)


def test_a_cpu_has_no_operations_of_its_own() -> None:
    assert select_ops(torch.device("cpu")) is None


def test_the_scheduler_does_not_know_the_block_of_the_padding(tiny_models: TinyModels) -> None:
    core = start(tiny_models.reference("llama").path, TorchOps())
    runner: Any = core.runner
    pool = runner._pool
    assert pool.trash_block == pool.num_blocks == core.info.num_blocks == core.scheduler.config.num_blocks
    assert pool.layers[0].k.shape[0] == pool.num_blocks + 1
