"""The tensors behind the block ids: one pair of K and V arrays per layer. Knows nothing of who uses which block."""

from __future__ import annotations

import msgspec
import numpy as np
import torch

from batching.machine import free_bytes
from contracts.errors import NotEnoughMemory
from contracts.sizes import format_bytes

MIN_DEFAULT_CPU_BYTES = 512 * 1024 * 1024


class LayerShape(msgspec.Struct, frozen=True, kw_only=True):
    """What one attention layer stores per token; families differ from layer to layer."""

    num_kv_heads: int
    k_dim: int
    v_dim: int

    def token_bytes(self, dtype: torch.dtype) -> int:
        return self.num_kv_heads * (self.k_dim + self.v_dim) * dtype.itemsize


class LayerCache:
    """K and V of one layer: k `[num_blocks, kv_heads, block_size, k_dim]`, v likewise with v_dim.

    k_scale and v_scale multiply what is stored. They are 1: --kv-dtype fp8 stores the numbers as they are, cut off at
    448. The backends of CUDA read and write float8, those of a CPU do not.
    """

    __slots__ = ("block_size", "k", "k_scale", "scales", "v", "v_scale")

    def __init__(self, shape: LayerShape, num_blocks: int, block_size: int, like: torch.Tensor) -> None:
        self.block_size = block_size
        rows = (num_blocks, shape.num_kv_heads, block_size)
        self.k = _zeros((*rows, shape.k_dim), like)
        self.v = _zeros((*rows, shape.v_dim), like)
        self.k_scale = 1.0
        self.v_scale = 1.0
        is_float8 = like.dtype is torch.float8_e4m3fn
        self.scales = torch.tensor([self.k_scale, self.v_scale], device=like.device) if is_float8 else None
        """The two of a float8 cache `[2] float32`, where kernels read them."""


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """torch.zeros, but on a CPU the pages are taken only when they are first written: torch would write them all."""
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    num_bytes = like.dtype.itemsize * int(np.prod(shape))
    return torch.from_numpy(np.zeros(num_bytes, np.uint8)).view(like.dtype).view(shape)


class KVCachePool:
    """All layers of the paged KV cache. Owner: the runner thread; block ids come from the scheduler's BlockPool."""

    def __init__(
        self,
        shapes: list[LayerShape],
        num_blocks: int,
        block_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        has_trash_block: bool = False,
    ) -> None:
        """With has_trash_block there is one block more than the scheduler knows, behind the others."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._has_trash_block = has_trash_block
        like = torch.empty(0, dtype=dtype, device=device)
        self.layers = [LayerCache(shape, num_blocks + has_trash_block, block_size, like) for shape in shapes]

    @property
    def trash_block(self) -> int:
        """The block that nobody owns or reads, for tokens that pad a step; ValueError where there is none."""
        if not self._has_trash_block:
            raise ValueError("this cache has no block for tokens that pad a step.")
        return self.num_blocks

    def clear(self, block_ids: list[int]) -> None:
        """Zero these blocks in every layer: what they held was not finite and would poison a masked product."""
        for layer in self.layers:
            bytes_or_numbers(layer.k)[block_ids] = 0
            bytes_or_numbers(layer.v)[block_ids] = 0


def bytes_or_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """float8 as the bytes it is, for torch does not index it on every device; other types as they are."""
    return tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 else tensor


def token_bytes(shapes: list[LayerShape], dtype: torch.dtype) -> int:
    """Bytes of KV per token, all layers together."""
    return sum(shape.token_bytes(dtype) for shape in shapes)


def default_cache_bytes(weight_bytes: int, device: torch.device) -> int:
    """On a CPU: as much as the weights, at least 512 MiB, at most half of what is free. On a GPU: cache_plan."""
    free = free_memory_bytes(device)
    return min(max(MIN_DEFAULT_CPU_BYTES, weight_bytes), free // 2)


def free_memory_bytes(device: torch.device) -> int:
    """Memory that a new allocation on the device can get now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return free_bytes()


def num_blocks_within(cache_bytes: int, block_bytes: int, min_tokens: int, block_size: int) -> int:
    """Blocks that fit in `cache_bytes`; raises NotEnoughMemory unless `min_tokens` tokens fit."""
    num_blocks = cache_bytes // block_bytes
    if num_blocks * block_size < min_tokens:
        needed = -(-min_tokens // block_size) * block_bytes
        or_shorter = f", or lower --max-model-len to {num_blocks * block_size}" if num_blocks else ""
        raise NotEnoughMemory(
            f"the KV cache has {format_bytes(cache_bytes)}, which holds {num_blocks * block_size} tokens, but one "
            f"request of full length ({min_tokens} tokens) needs {format_bytes(needed)}: raise --kv-cache-memory to "
            f"{_whole_mib(needed)}MiB{or_shorter}."
        )
    return num_blocks


def check_cache_fits(cache_bytes: int, free: int) -> None:
    """Raise NotEnoughMemory where the cache is larger than the memory: a CPU would notice only once it is used."""
    if cache_bytes > free:
        raise NotEnoughMemory(
            f"the KV cache would take {format_bytes(cache_bytes)}, but {format_bytes(free)} of memory are free beside "
            f"the weights: lower --kv-cache-memory to at most {free // 2**20}MiB, or --max-num-seqs or --max-model-len."
        )


def _whole_mib(num_bytes: int) -> int:
    return -(-num_bytes // 2**20)
