"""Over a float8 cache the passes of the device agree; a CPU serves no such cache, but plain torch reads it."""

from __future__ import annotations

import pytest
import torch

from batching.device_forward import DeviceForward, GenericDeviceForward, probe_logits
from batching.device_llama import DeviceLlama
from batching.device_ops import TorchOps
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel, load_model, no_progress
from batching.probe import relative_difference
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import TinyModels

SCALES = (0.5, 2.0)


def pool_of(loaded: LoadedModel, dtype: torch.dtype, scales: tuple[float, float] = (1.0, 1.0)) -> KVCachePool:
    pool = KVCachePool(loaded.layer_shapes, 40, 4, dtype=dtype, device=loaded.device, has_trash_block=True)
    for layer in pool.layers:
        layer.k_scale, layer.v_scale = scales
        if layer.scales is not None:
            layer.scales.copy_(torch.tensor(scales))
    return pool


def logits_of(forward: DeviceForward, loaded: LoadedModel, pool: KVCachePool) -> torch.Tensor:
    with torch.inference_mode():
        return probe_logits(forward, loaded, pool, TorchOps())


@pytest.mark.parametrize("scales", [(1.0, 1.0), SCALES])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral_window"])
def test_lean_and_generic_pass_agree_and_are_near_the_wide_cache(
    tiny_models: TinyModels, family: str, scales: tuple[float, float]
) -> None:
    loaded = load_model(engine_settings(tiny_models.reference(family).path), no_progress)
    ops = TorchOps()
    wide_pool = pool_of(loaded, torch.float32)
    wide = logits_of(GenericDeviceForward(loaded, wide_pool, ops), loaded, wide_pool)
    pool = pool_of(loaded, torch.float8_e4m3fn, scales)
    generic = logits_of(GenericDeviceForward(loaded, pool, ops), loaded, pool)
    lean = logits_of(DeviceLlama(loaded, pool, ops, loaded.max_model_len + 1), loaded, pool)
    assert relative_difference(lean, generic) < 1e-5
    assert 1e-4 < relative_difference(generic, wide) < 0.2, "it is narrow, and right"
