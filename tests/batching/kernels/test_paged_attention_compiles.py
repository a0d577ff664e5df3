"""The paged attention kernels compile for NVIDIA's architectures, which the interpreter says nothing about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.batching.kernels.paged_cases import Batch, Case, attend
from tests.batching.kernels.triton_child import (
    WITHOUT_TRITON,
    CompileOnly,
    DriverStandIn,
    Run,
    has_triton,
    triton_process,
)

if not has_triton():
    pytest.skip(WITHOUT_TRITON, allow_module_level=True)

ROWS = ((600, 1), (3, 40))
"""A context of several splits and a chunk: all kernels are launched."""
MAX_SHARED_BYTES = 99 * 1024
"""Of one program on the smallest of the architectures below (8.6, 8.9 and 12.0); 9.0 has 227 KiB."""

SHAPES = {
    "llama": Case(ROWS, group=4, num_kv_heads=8, dims=(128, 128), dtype="bfloat16"),
    "gemma 2": Case(ROWS, group=2, dims=(256, 256), dtype="bfloat16", window=4096, softcap=50.0),
    "gpt-oss": Case(ROWS, group=8, dims=(64, 64), dtype="bfloat16", window=128, has_sinks=True),
    "float8": Case(ROWS, group=4, dims=(128, 128), dtype="bfloat16", cache_dtype="float8_e4m3fn"),
    "dims of 80, float16": Case(ROWS, group=1, dims=(80, 80), dtype="float16", block_size=32),
    "dims of 192 and 128": Case(ROWS, group=1, dims=(192, 128), dtype="bfloat16", block_size=64),
    "a head for 64": Case(ROWS, group=64, num_kv_heads=1, dims=(128, 128), dtype="bfloat16"),
    "float32": Case(ROWS, group=4, dims=(64, 64), dtype="float32"),
    "everything": Case(ROWS, group=8, dims=(128, 128), dtype="bfloat16", window=300, softcap=50.0, has_sinks=True),
}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with triton_process(tmp_path_factory.mktemp("triton")) as run:
        yield run


def shared_bytes(case: Case, compute_capability: int) -> list[int]:
    """Shared memory of each kernel that the case launches, from what the compiler made."""
    from triton.runtime import driver

    import batching.kernels.paged_attention as kernels

    driver.set_active(DriverStandIn(compute_capability))
    usual = kernels._attend, kernels._reduce
    kernels._attend, kernels._reduce = stand_ins = CompileOnly(usual[0]), CompileOnly(usual[1])
    try:
        attend(kernels, Batch(case, torch.device("cpu")))
    finally:
        kernels._attend, kernels._reduce = usual
    return [kernel.metadata.shared for stand_in in stand_ins for kernel in stand_in.compiled]


@pytest.mark.parametrize("shape", ["llama", "everything"])
def test_kernels_compile_for_hopper(shape: str, compiler: Run) -> None:
    sizes = compiler(shared_bytes, SHAPES[shape], 90)
    assert len(sizes) == 3
    assert max(sizes) <= MAX_SHARED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("compute_capability", [80, 89, 90, 100, 120])
@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "float8"])
def test_kernels_compile_for_any_shape_and_architecture(shape: str, compute_capability: int, compiler: Run) -> None:
    sizes = compiler(shared_bytes, SHAPES[shape], compute_capability)
    assert max(sizes) <= MAX_SHARED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("compute_capability", [89, 90, 100, 120])
def test_float8_compiles_from_ada_on(compute_capability: int, compiler: Run) -> None:
    assert len(compiler(shared_bytes, SHAPES["float8"], compute_capability)) == 3
