"""Attention over the paged KV cache, behind the one function that transformers calls in every layer."""

from __future__ import annotations

import torch

from batching.attention.paged_layer import AttentionBackend
from batching.attention.torch_backend import TorchBackend


def select_backend(device: torch.device) -> AttentionBackend:
    """The fastest backend that this machine can run: the kernels in numba on a CPU, those in Triton on CUDA."""
    if device.type == "cpu":
        try:
            from batching.attention.cpu_backend import CpuBackend
        except ImportError:
            return TorchBackend(device)
        return CpuBackend()
    if device.type == "cuda":
        try:
            from batching.attention.triton_backend import TritonBackend
        except ImportError:
            return TorchBackend(device)
        return TritonBackend(device)
    return TorchBackend(device)
