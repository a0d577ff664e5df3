"""Starts a device runner where the device's operations are there and right; else the engine takes another runner."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import SubprocessError

import msgspec
import structlog
import torch

from batching.device_forward import select_device_forward
from batching.device_ops import DeviceOps
from batching.device_runner import DeviceLimits, DeviceRunner
from batching.kernels.triton_support import has_triton
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel
from batching.warm_up import warm_up

log = structlog.get_logger("quire.engine")


class StartedRunner(msgspec.Struct, frozen=True, kw_only=True):
    """A runner whose operations have all run once."""

    runner: DeviceRunner
    forward_name: str


def select_ops(device: torch.device) -> DeviceOps | None:
    """Triton's operations on CUDA, None where there are none for this device."""
    if device.type != "cuda" or not has_triton():
        return None
    from batching.device_ops_triton import TritonOps

    return TritonOps()


def limits_of(loaded: LoadedModel, max_num_seqs: int) -> DeviceLimits:
    return DeviceLimits(
        max_num_seqs=max_num_seqs,
        max_model_len=loaded.max_model_len,
        vocab_size=loaded.vocab_size,
        eos_token_ids=frozenset(loaded.eos_token_ids),
    )


def start_device_runner(
    loaded: LoadedModel, pool: KVCachePool, ops: DeviceOps, max_num_seqs: int, reload: Callable[[], LoadedModel]
) -> StartedRunner | None:
    """None, with a line in the log, where the operations cannot run here or give other logits than torch does."""
    limits = limits_of(loaded, max_num_seqs)
    try:
        selected = select_device_forward(loaded, pool, ops, reload)
        if selected is None:
            return None
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()  # the weights that were put together leave holes
        runner = DeviceRunner(selected.forward, pool, ops, limits)
        warm_up(runner, pool, loaded.max_model_len)  # what cannot be compiled shows here
    except _startup_errors() as error:
        log.warning("device_operations_failed", error=str(error), model=loaded.name)
        return None
    return StartedRunner(runner=runner, forward_name=type(selected.forward).__name__)


def _startup_errors() -> tuple[type[Exception], ...]:
    """What kernels raise that cannot be compiled or launched on this machine, or not for these shapes."""
    errors: tuple[type[Exception], ...] = (RuntimeError, OSError, SubprocessError, ImportError, ValueError)
    if not has_triton():
        return errors
    from triton.errors import TritonError

    return (*errors, TritonError)
