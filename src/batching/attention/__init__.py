"""Attention over the paged KV cache, behind the one function that transformers calls in every layer."""

from __future__ import annotations

import torch

from batching.attention.paged_layer import AttentionBackend
from batching.attention.torch_backend import TorchBackend


def select_backend(device: torch.device) -> AttentionBackend:
    """The fastest backend that this machine can run."""
    return TorchBackend(device)
