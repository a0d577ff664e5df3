"""The arithmetic of the KV cache's size on a GPU: what may be filled, less what is used and what a step takes.

Numbers in, numbers or NotEnoughMemory out; who measures them is memory_profile's business.
"""

from __future__ import annotations

import msgspec

from contracts.errors import NotEnoughMemory
from contracts.sizes import format_bytes

NUM_SPARE_BLOCKS = 1
"""Room left for a block that no sequence owns: rows that only fill up a batch write there."""


class DeviceUse(msgspec.Struct, frozen=True, kw_only=True):
    """A device with the model on it and no KV cache yet."""

    total_bytes: int
    used_bytes: int
    """By anybody: weights, the driver's context, other processes."""
    peak_bytes: int
    """That the largest step takes for a moment, beside what is used."""
    utilization: float
    """The fraction of the whole memory that may be filled."""

    @property
    def limit_bytes(self) -> int:
        return int(self.total_bytes * self.utilization)

    @property
    def cache_bytes(self) -> int:
        """What is left for the KV cache."""
        return max(0, self.limit_bytes - self.used_bytes - self.peak_bytes)


class CacheDemand(msgspec.Struct, frozen=True, kw_only=True):
    """What the KV cache is asked to hold."""

    block_bytes: int
    """All layers together."""
    block_size: int
    """Tokens."""
    max_model_len: int
    max_num_seqs: int
    is_fp8: bool = False

    @property
    def full_length_blocks(self) -> int:
        """Of one sequence of full length."""
        return -(-self.max_model_len // self.block_size)

    @property
    def most_useful_blocks(self) -> int:
        """More than a full batch of full-length sequences is never used."""
        return self.max_num_seqs * self.full_length_blocks


def plan_blocks(use: DeviceUse, demand: CacheDemand, wanted_bytes: int | None) -> int:
    """The number of blocks to allocate, with room for NUM_SPARE_BLOCKS more; raises NotEnoughMemory with the sum.

    `wanted_bytes` is the size that the operator asked for: it may go beyond the utilization, not beyond the memory.
    """
    left = use.cache_bytes if wanted_bytes is None else wanted_bytes
    num_blocks = min(max(0, left // demand.block_bytes - NUM_SPARE_BLOCKS), demand.most_useful_blocks)
    if num_blocks < demand.full_length_blocks:
        raise NotEnoughMemory(_too_short(use, demand, left, num_blocks, is_wanted=wanted_bytes is not None))
    taken = (num_blocks + NUM_SPARE_BLOCKS) * demand.block_bytes
    free = use.total_bytes - use.used_bytes - use.peak_bytes
    if taken > free:
        raise NotEnoughMemory(
            f"--kv-cache-memory asks for {format_bytes(taken)}, but of the GPU's {format_bytes(use.total_bytes)} "
            f"{format_bytes(use.used_bytes)} are in use and the largest step takes {format_bytes(use.peak_bytes)}: "
            f"lower it to at most {max(0, free) // 2**20}MiB, or leave it out."
        )
    return num_blocks


def _too_short(use: DeviceUse, demand: CacheDemand, left: int, num_blocks: int, *, is_wanted: bool) -> str:
    needed = (demand.full_length_blocks + NUM_SPARE_BLOCKS) * demand.block_bytes
    longest = num_blocks * demand.block_size
    request = f"one request of full length ({demand.max_model_len} tokens) needs {format_bytes(needed)} of KV cache"
    fits = f"The longest context that fits is {longest} tokens" if longest else "No context fits"
    fp8 = "" if demand.is_fp8 else ", --kv-dtype fp8 (a smaller cache)"
    shorter = f" --max-model-len {longest}{fp8}" if longest else f" a lower --max-model-len{fp8}"
    if is_wanted:
        needed_mib = -(-needed // 2**20)
        return (
            f"{request}, but --kv-cache-memory gives it {format_bytes(left)}. {fits}: raise it to {needed_mib}MiB, or "
            f"take{shorter}."
        )
    return (
        f"{request}, but {format_bytes(left)} are left: {format_bytes(use.limit_bytes)} "
        f"(--gpu-memory-utilization {use.utilization:g} of {format_bytes(use.total_bytes)}) less "
        f"{format_bytes(use.used_bytes)} in use with the weights and {format_bytes(use.peak_bytes)} for the largest "
        f"step. {fits}: take{shorter}, a lower --max-num-seqs or --max-num-batched-tokens (a smaller step), or a "
        "higher --gpu-memory-utilization."
    )
