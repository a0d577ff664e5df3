"""Free and total memory of the GPU that engines would take, asked of NVIDIA's management library, without torch.

Knows nothing of models. Where there is no driver, no GPU, or a library that answers otherwise, nothing is known.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class GpuMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Of one GPU, now."""

    total_bytes: int
    free_bytes: int


def free_gpu_bytes(
    environ: Mapping[str, str] = os.environ, open_library: Callable[[str], Any] = ctypes.CDLL
) -> int | None:
    """Bytes free on the first visible GPU; None where there is none."""
    memory = gpu_memory(environ, open_library)
    return None if memory is None else memory.free_bytes


def gpu_memory(
    environ: Mapping[str, str] = os.environ, open_library: Callable[[str], Any] = ctypes.CDLL
) -> GpuMemory | None:
    """The memory of the first visible GPU; None where there is none."""
    index = visible_index(environ.get("CUDA_VISIBLE_DEVICES"))
    if index is None:
        return None
    try:
        nvml = open_library(LIBRARY)
    except OSError:
        return None
    handle, memory = ctypes.c_void_p(), _Memory()
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0:
            return None
        if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
            return None
    finally:
        nvml.nvmlShutdown()
    return GpuMemory(total_bytes=int(memory.total), free_bytes=int(memory.free))


def visible_index(visible: str | None) -> int | None:
    """The index of the first GPU in CUDA_VISIBLE_DEVICES; None where it hides them all, 0 where it gives no numbers."""
    if visible is None:
        return 0
    first = visible.split(",")[0].strip()
    if first in ("", "-1"):
        return None
    return int(first) if first.isascii() and first.isdigit() else 0
