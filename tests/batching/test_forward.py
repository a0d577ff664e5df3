"""The fused pass equals transformers' own, is chosen only where it does, and gives way where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from batching import forward
from batching.attention import select_backend
from batching.attention.cpu_backend import CpuBackend
from batching.attention.paged_layer import AttentionBackend
from batching.attention.torch_backend import TorchBackend
from batching.engine import allocate_cache
from batching.forward import GenericForward, is_whole, proven_backend, select_forward
from batching.fused_llama import FusedForward
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel, load_model, no_progress
from batching.step import ScheduledSequence, SchedulerOutput
from batching.step_input import StepInput
from contracts.sampling import SamplingParams
from contracts.settings import EngineSettings
from tests.batching.tiny_models import TinyModels

CPU = torch.device("cpu")
FUSED_FAMILIES = ["llama", "llama31", "qwen2", "qwen3", "mistral_window"]
GENERIC_FAMILIES = ["gemma2", "gpt2", "smollm3"]


def _load(path: Path, dtype: str) -> tuple[LoadedModel, KVCachePool]:
    settings = EngineSettings(model=str(path), dtype=dtype, kv_cache_memory="4MiB", device="cpu")  # type: ignore[arg-type]
    loaded = load_model(settings, no_progress)
    return loaded, allocate_cache(settings, loaded)


def _row(seq_id: int, num_tokens: int, start: int) -> ScheduledSequence:
    first = seq_id * 3
    return ScheduledSequence(
        seq_id=seq_id,
        token_ids=[(7 * seq_id + 3 * position) % 100 for position in range(start, start + num_tokens)],
        start=start,
        block_ids=[first, first + 1, first + 2],
        is_sampling=True,
        sampling=SamplingParams(temperature=0.0),
        seed=0,
        num_output_tokens=0,
    )


def _plans() -> list[SchedulerOutput]:
    """Prefill of four sequences, then three decodes beside a chunk that continues, as engines mix them."""
    batches = [
        [_row(0, 9, 0), _row(1, 20, 0), _row(2, 1, 0), _row(3, 17, 0)],
        [_row(0, 1, 9), _row(1, 1, 20), _row(2, 1, 1), _row(3, 12, 17)],
    ]
    return [
        SchedulerOutput(step_id=0, sequences=rows, num_tokens=sum(len(row.token_ids) for row in rows), num_decodes=0)
        for rows in batches
    ]


def _logits(run: forward.Forward, pool: KVCachePool) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([run(StepInput(plan, pool.block_size)).float() for plan in _plans()])


@pytest.mark.parametrize("family", FUSED_FAMILIES)
def test_fused_pass_equals_transformers_in_float32(tiny_models: TinyModels, family: str) -> None:
    """Logits of mixed steps agree to float32 rounding."""
    loaded, pool = _load(tiny_models.reference(family).path, "float32")
    backend = select_backend(loaded.device)
    expected = _logits(GenericForward(loaded, pool, backend), pool)
    fused = _logits(FusedForward(loaded, pool, backend), pool)  # type: ignore[arg-type]
    assert torch.allclose(fused, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("family", FUSED_FAMILIES)
def test_fused_bfloat16_is_no_further_from_float32_than_transformers(tiny_models: TinyModels, family: str) -> None:
    """Rounding at other places must not cost accuracy."""
    exact_model, exact_pool = _load(tiny_models.reference(family).path, "float32")
    exact = _logits(GenericForward(exact_model, exact_pool, select_backend(exact_model.device)), exact_pool)
    loaded, pool = _load(tiny_models.reference(family).path, "bfloat16")
    backend = select_backend(loaded.device)
    generic = _logits(GenericForward(loaded, pool, backend), pool)
    fused = _logits(FusedForward(loaded, pool, backend), pool)  # type: ignore[arg-type]
    assert float((fused - exact).norm()) <= 1.2 * float((generic - exact).norm())


@pytest.mark.parametrize("family", FUSED_FAMILIES)
def test_recognised_families_run_fused(tiny_models: TinyModels, family: str) -> None:
    """The fast path is taken where it exists, and the model's own weights are freed."""
    loaded, pool = _load(tiny_models.reference(family).path, "float32")
    assert isinstance(select_forward(loaded, pool, lambda: loaded), FusedForward)
    assert not is_whole(loaded)


@pytest.mark.parametrize("family", GENERIC_FAMILIES)
def test_other_families_run_as_transformers_runs_them(tiny_models: TinyModels, family: str) -> None:
    """What is not recognised exactly is not fused."""
    loaded, pool = _load(tiny_models.reference(family).path, "float32")
    assert isinstance(select_forward(loaded, pool, lambda: loaded), GenericForward)


def test_a_disagreeing_fused_pass_gives_way(tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong fast path is found by the probe, and a freshly loaded model serves instead."""
    path = tiny_models.reference("llama").path
    loaded, pool = _load(path, "float32")
    right = _logits(GenericForward(*_load(path, "float32"), select_backend(loaded.device)), pool)
    monkeypatch.setattr(FusedForward, "__call__", lambda self, step: torch.ones(len(step.sample_rows), 128))
    chosen = select_forward(loaded, pool, lambda: _load(path, "float32")[0])
    assert isinstance(chosen, GenericForward)
    assert torch.allclose(_logits(chosen, pool), right, atol=1e-4)


class WrongAttention(TorchBackend):
    """Attention that says nothing."""

    def forward(self, *args: Any) -> torch.Tensor:
        return torch.zeros_like(super().forward(*args))


class NoAttention(TorchBackend):
    """Attention whose kernels do not compile."""

    def forward(self, *args: Any) -> torch.Tensor:
        raise RuntimeError("no C compiler")


@pytest.mark.parametrize(
    ("backend", "is_kept"), [(CpuBackend(), True), (WrongAttention(CPU), False), (NoAttention(CPU), False)]
)
def test_attention_kernels_serve_where_they_run_and_agree(
    tiny_models: TinyModels, backend: AttentionBackend, is_kept: bool
) -> None:
    """Those of a device are proven when a model is loaded; attention in torch serves instead."""
    loaded, pool = _load(tiny_models.reference("llama").path, "float32")
    with torch.inference_mode():
        proven = proven_backend(loaded, pool, backend)
    assert (proven is backend) == is_kept
    assert is_kept or type(proven) is TorchBackend
