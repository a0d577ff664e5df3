"""The doctor's sums: what does not fit fails with the flag that makes it fit, and that flag really does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.checkup import Finding
from contracts.model_catalog import ModelProfile
from contracts.settings import EngineSettings
from service.model_memory import DeviceMemory
from service.terminal.memory_room import check_memory
from tests.service.terminal.safetensors_files import write_checkpoint

GIB = 2**30
TOKEN_BYTES = 2 * 1 * 4 * 2 * 4
"""Two layers, one KV head of four float32 numbers, K and V."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", max_position_embeddings=32768)


def memory_of(path: Path, free_bytes: int = 8 * GIB, *, is_gpu: bool = False, **settings: Any) -> Finding:
    profile = ModelProfile(alias="tiny", model=str(path), max_model_len=settings.pop("max_model_len", None))
    memory = DeviceMemory(free_bytes=free_bytes, gpu_total_bytes=8 * GIB if is_gpu else None)
    return check_memory(profile, EngineSettings(**settings), memory)


def test_concurrency_at_full_length_is_told(checkpoint: Path) -> None:
    finding = memory_of(checkpoint, kv_cache_memory="4MiB", max_model_len=8192)
    assert finding.state == "ok"
    assert finding.evidence["cache_tokens"] == 4 * 2**20 // TOKEN_BYTES
    assert finding.evidence["full_length_requests"] == 4 * 2**20 // TOKEN_BYTES // 8192
    assert "holds 8 requests of 8,192 tokens" in finding.summary


def test_cache_that_is_too_small_fails_and_its_remedies_work(checkpoint: Path) -> None:
    finding = memory_of(checkpoint, kv_cache_memory="1MiB")
    assert finding.state == "failed"
    assert finding.remedy == "Give --kv-cache-memory 2MiB or --max-model-len 16384."
    assert memory_of(checkpoint, kv_cache_memory="2MiB").state == "ok"
    assert memory_of(checkpoint, kv_cache_memory="1MiB", max_model_len=16384).state == "ok"


def test_weights_beyond_the_machine_fail(checkpoint: Path) -> None:
    finding = memory_of(checkpoint, free_bytes=2**20)
    assert (finding.state, "--dtype bfloat16" in (finding.remedy or "")) == ("failed", True)


@pytest.mark.parametrize(("is_gpu", "state"), [(False, "warning"), (True, "failed")])
def test_cache_beyond_what_is_free_fails_where_it_is_taken_at_once(checkpoint: Path, is_gpu: bool, state: str) -> None:
    """On a CPU its pages are taken only as it fills."""
    free_bytes = (1024 if is_gpu else 512) * 2**20 + 5 * 2**20
    finding = memory_of(checkpoint, free_bytes, is_gpu=is_gpu, kv_cache_memory="64MiB")
    assert (finding.state, finding.remedy) == (state, "Lower --kv-cache-memory to 4MiB, or free memory.")


def test_unknown_size_is_skipped() -> None:
    absent = ModelProfile(alias="a", model="org/quire-test-of-a-missing-model")
    finding = check_memory(absent, EngineSettings(), DeviceMemory(free_bytes=GIB))
    assert finding.state == "skipped"
