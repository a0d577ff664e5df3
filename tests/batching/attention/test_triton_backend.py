"""The CUDA backend's own work, with its kernels interpreted: steps as it uploads them, slots as it writes them."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
import torch

from batching.attention import select_backend
from batching.attention.reference import AttentionVariant
from batching.attention.torch_backend import TorchBackend
from batching.engine import allocate_cache
from batching.forward import proven_backend
from batching.model_loader import load_model, no_progress
from contracts.settings import EngineSettings
from tests.batching.kernels.triton_child import WITHOUT_TRITON, Run, has_triton
from tests.batching.test_attention import DIMS, ROWS, VARIANTS, PagedCase, run_backend
from tests.batching.tiny_models import TinyModels

if not has_triton():
    pytest.skip(WITHOUT_TRITON, allow_module_level=True)

CPU = torch.device("cpu")


def outputs(rows: str, variant: AttentionVariant, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """What the backend gives, and what a loop over positions does."""
    from batching.attention.triton_backend import TritonBackend

    case = PagedCase(ROWS[rows], num_kv_heads=2, block_size=4, dtype=dtype, dims=DIMS["whole vectors"])
    return run_backend(TritonBackend(CPU), case, variant), case.expected(variant)


def caches_after_a_step() -> tuple[torch.Tensor, ...]:
    """K and V as this backend leaves them, and as the one in torch does."""
    from batching.attention.triton_backend import TritonBackend

    ours, theirs = (PagedCase(ROWS["mixed"], num_kv_heads=2, block_size=4, dtype=torch.float32) for _ in range(2))
    run_backend(TritonBackend(CPU), ours, VARIANTS["plain"])
    run_backend(TorchBackend(CPU), theirs, VARIANTS["plain"])
    return ours.cache.k, ours.cache.v, theirs.cache.k, theirs.cache.v


def float8_step(largest: float) -> tuple[torch.Tensor, ...]:
    """What the backend gives over a float8 cache, what is right, and the largest key that it stored."""
    from batching.attention.triton_backend import TritonBackend

    case = PagedCase(ROWS["whole prompt"], num_kv_heads=2, block_size=4, dtype=torch.float32, dims=DIMS["ragged"])
    cache = case.cache
    cache.k, cache.v = cache.k.to(torch.float8_e4m3fn), cache.v.to(torch.float8_e4m3fn)
    cache.k_scale, cache.v_scale = 0.01, 0.02
    case.k[0][0, 0, 0] = largest
    actual = run_backend(TritonBackend(CPU), case, VARIANTS["plain"])
    block, offset = int(case.step.block_of[0]), int(case.step.offset_of[0])
    return actual, case.expected(VARIANTS["plain"]), cache.k.view(torch.uint8)[block, 0, offset, :1]


def offsets_of_an_upload() -> list[int]:
    from batching.attention.triton_backend import upload_step

    case = PagedCase(ROWS["mixed"], num_kv_heads=2, block_size=4, dtype=torch.float32)
    batch, block_of, offset_of = upload_step(case.step, CPU)
    tensors = [batch.query_starts, batch.context_lens, batch.tables, batch.part_starts, block_of, offset_of]
    return [int(tensor.storage_offset()) for tensor in tensors]


def is_proven(path: str, kv_dtype: Literal["auto", "fp8"] = "auto") -> bool:
    """True where a model gives the same logits with these kernels as with attention in torch."""
    from batching.attention.triton_backend import TritonBackend

    settings = EngineSettings(model=path, dtype="float32", kv_cache_memory="4MiB", device="cpu")
    loaded = load_model(settings, no_progress)
    backend = TritonBackend(CPU)
    with torch.inference_mode():
        pool = allocate_cache(msgspec.structs.replace(settings, kv_dtype=kv_dtype), loaded)
        return proven_backend(loaded, pool, backend) is backend


def name_of_backend_for_cuda() -> str:
    return type(select_backend(torch.device("cuda"))).__name__


@pytest.mark.parametrize("rows", ["first token", "decodes at block edges", "long chunk", "mixed"])
@pytest.mark.parametrize("variant", ["plain", "window", "window and softcap", "sinks"])
def test_backend_with_kernels_equals_the_loop_over_positions(variant: str, rows: str, interpret: Run) -> None:
    actual, expected = interpret(outputs, rows, VARIANTS[variant])
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_backend_with_kernels_gives_bfloat16_for_bfloat16(interpret: Run) -> None:
    actual, expected = interpret(outputs, "mixed", VARIANTS["plain"], torch.bfloat16)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), expected, rtol=2e-2, atol=3e-2)


def test_keys_and_values_are_written_as_the_torch_backend_writes_them(interpret: Run) -> None:
    k, v, expected_k, expected_v = interpret(caches_after_a_step)
    assert torch.equal(k, expected_k)
    assert torch.equal(v, expected_v)


def test_float8_cache_is_written_and_read_in_units_of_its_scale(interpret: Run) -> None:
    actual, expected, _ = interpret(float8_step, 0.5)
    torch.testing.assert_close(actual.double(), expected, rtol=0.1, atol=0.2)


def test_a_key_beyond_the_range_of_float8_is_stored_as_its_largest_number(interpret: Run) -> None:
    _, _, stored = interpret(float8_step, 1e6)
    assert stored.view(torch.float8_e4m3fn).float().item() == torch.finfo(torch.float8_e4m3fn).max


def test_arrays_of_an_upload_are_aligned_for_the_kernels(interpret: Run) -> None:
    assert [offset % 32 for offset in interpret(offsets_of_an_upload)] == [0] * 6


def test_cuda_gets_the_kernels_where_there_is_triton(interpret: Run) -> None:
    assert interpret(name_of_backend_for_cuda) == "TritonBackend"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral_window", "gemma2", "gpt_oss"])
def test_whole_models_give_the_same_logits_with_the_kernels(
    family: str, interpret: Run, tiny_models: TinyModels
) -> None:
    assert interpret(is_proven, str(tiny_models.reference(family).path))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_whole_models_give_the_same_logits_over_a_float8_cache(
    family: str, interpret: Run, tiny_models: TinyModels
) -> None:
    """What --kv-dtype fp8 does on a device when the kernels are proven: attention in torch reads the same bytes."""
    assert interpret(is_proven, str(tiny_models.reference(family).path), "fp8")
