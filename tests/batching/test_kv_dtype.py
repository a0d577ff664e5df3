"""float8 caches are served where kernels read them, and refused elsewhere before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from batching import kv_dtype as module
from batching import model_loader
from batching.attention.reference import AttentionVariant
from batching.attention.torch_backend import TorchBackend
from batching.kv_cache import KVCachePool, LayerShape, token_bytes
from batching.kv_dtype import check_kv_dtype, kv_dtype
from batching.model_loader import load_model, no_progress
from contracts.errors import ModelNotUsable
from tests.batching.real_engine import engine_settings
from tests.batching.test_attention import DIMS, ROWS, VARIANTS, PagedCase, run_backend
from tests.batching.tiny_models import TinyModels

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FLOAT8 = torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("auto", torch.bfloat16), ("float32", torch.float32), ("bfloat16", torch.bfloat16), ("fp8", FLOAT8)],
)
def test_setting_names_a_type(wanted: str, expected: torch.dtype) -> None:
    assert kv_dtype(wanted, torch.bfloat16) == expected


def refusal_of(device: torch.device) -> str:
    with pytest.raises(ModelNotUsable) as caught:
        check_kv_dtype("fp8", device)
    return caught.value.message


def pretend(monkeypatch: pytest.MonkeyPatch, *, has_triton: bool, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object() if has_triton else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def test_float8_is_refused_on_a_cpu() -> None:
    assert refusal_of(CPU) == (
        "--kv-dtype fp8 needs a GPU: the attention kernels of a CPU do not read float8; use --kv-dtype bfloat16, or "
        "leave it out"
    )


def test_float8_is_refused_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, has_triton=False, capability=(9, 0))
    assert "needs Triton" in refusal_of(CUDA)


def test_float8_is_refused_on_a_gpu_that_cannot_convert_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, has_triton=True, capability=(8, 0))
    assert "capability 8.9 or later, and this one has 8.0" in refusal_of(CUDA)


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0)])
def test_float8_is_served_on_later_gpus(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, has_triton=True, capability=capability)
    check_kv_dtype("fp8", CUDA)


@pytest.mark.parametrize("wanted", ["auto", "float32", "bfloat16"])
def test_other_types_are_served_everywhere(wanted: str) -> None:
    check_kv_dtype(wanted, CPU)


def test_float8_is_refused_before_weights_are_read(tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_models.reference("llama").path
    monkeypatch.setattr(model_loader, "read_model", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(ModelNotUsable, match="--kv-dtype fp8 needs a GPU"):
        load_model(engine_settings(path, kv_dtype="fp8"), no_progress)


def test_float8_cache_takes_a_byte_for_a_number_and_is_cleared() -> None:
    shapes = [LayerShape(num_kv_heads=2, k_dim=8, v_dim=4)]
    pool = KVCachePool(shapes, num_blocks=3, block_size=4, dtype=FLOAT8, device=CPU)
    pool.layers[0].k.view(torch.uint8).fill_(0x7F)  # NaN
    pool.clear([0, 2])
    assert token_bytes(shapes, FLOAT8) == 24
    assert pool.layers[0].k.float().isnan().sum(dim=(1, 2, 3)).tolist() == [0, 64, 0]


@pytest.mark.parametrize("rows", ["first token", "whole prompt"])
@pytest.mark.parametrize("scale", [1.0, 0.02])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_attention_in_torch_reads_and_writes_float8(variant: AttentionVariant, scale: float, rows: str) -> None:
    """It stands in for the kernels while they are proven, and where they fail."""
    case = PagedCase(ROWS[rows], num_kv_heads=2, block_size=4, dtype=torch.float32, dims=DIMS["ragged"])
    cache: Any = case.cache
    cache.k, cache.v = cache.k.to(FLOAT8), cache.v.to(FLOAT8)
    cache.k_scale = cache.v_scale = scale
    actual = run_backend(TorchBackend(CPU), case, variant)
    torch.testing.assert_close(actual.double(), case.expected(variant), rtol=0.1, atol=0.25)
