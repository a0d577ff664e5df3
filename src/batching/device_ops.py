"""What the device runner asks of a device: the operations of a step over permanent rows, in Triton or in plain torch.

Owns the protocol and its implementation in torch, which runs anywhere and is what the other one is tested against.
The one in Triton stands in device_ops_triton, which is imported only where Triton can be.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import torch

from batching.attention.reference import AttentionVariant, attend_sequence
from batching.attention_bounds import AttentionBounds
from batching.kernels import device_sampling_torch, fused_torch, step_input_torch
from batching.kernels.fused_torch import Activation, HeadLayout, NormKind
from batching.kernels.sampler_buffers import SamplerBuffers
from batching.kernels.step_input_torch import StepInputs
from batching.kv_cache import LayerCache
from batching.row_tables import RowTables

Rope = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""cos and sin `[max_len, half]`, and the positions `[T]`."""
Norms = tuple[torch.Tensor, torch.Tensor, NormKind]
"""Weights of the norms of q and k heads."""


class DeviceStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step as the layers see it."""

    inputs: StepInputs
    block_tables: torch.Tensor
    """`[R, max_blocks] int32`: the blocks of each row of the plan."""
    bounds: AttentionBounds


class DeviceOps(Protocol):
    """The operations; the modules of batching.kernels document each. None of them waits where `is_capturable`."""

    is_capturable: bool
    """On a CUDA device a step of these can be captured as a graph."""

    def apply_differences(self, tables: RowTables, packed: torch.Tensor) -> None: ...

    def build_inputs(self, tables: RowTables, plan: torch.Tensor, inputs: StepInputs) -> None: ...

    def commit_tokens(
        self, tables: RowTables, plan: torch.Tensor, inputs: StepInputs, sampled: torch.Tensor
    ) -> None: ...

    def sample(self, logits: torch.Tensor, inputs: StepInputs, tables: RowTables, buffers: SamplerBuffers) -> None:
        """Tokens of `inputs.logit_rows`; nothing obeys a mask yet."""
        ...

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, kind: NormKind, out: torch.Tensor
    ) -> None: ...

    def rope_kv_write(
        self,
        qkv: torch.Tensor,
        layout: HeadLayout,
        rope: Rope,
        slots: torch.Tensor,
        cache: LayerCache,
        norms: Norms | None,
    ) -> torch.Tensor:
        """q `[T, num_heads, k_dim]`, rotated; k and v are in the cache."""
        ...

    def gated_activation(self, gate_up: torch.Tensor, activation: Activation, out: torch.Tensor) -> None: ...

    def attend(self, q: torch.Tensor, cache: LayerCache, step: DeviceStep, variant: AttentionVariant) -> torch.Tensor:
        """q `[q_heads, T, k_dim]` -> `[T, q_heads, v_dim]`; tokens that pad the step get zeros."""
        ...


class TorchOps:
    """Plain torch on any device; it waits for the device at every turn."""

    is_capturable = False

    def apply_differences(self, tables: RowTables, packed: torch.Tensor) -> None:
        step_input_torch.apply_differences(tables, packed)

    def build_inputs(self, tables: RowTables, plan: torch.Tensor, inputs: StepInputs) -> None:
        step_input_torch.build_inputs(tables, plan, inputs)

    def commit_tokens(self, tables: RowTables, plan: torch.Tensor, inputs: StepInputs, sampled: torch.Tensor) -> None:
        step_input_torch.commit_tokens(tables, plan, inputs, sampled)

    def sample(self, logits: torch.Tensor, inputs: StepInputs, tables: RowTables, buffers: SamplerBuffers) -> None:
        device_sampling_torch.sample(logits, inputs.logit_rows, inputs.num_sampling, tables, None, buffers)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, kind: NormKind, out: torch.Tensor
    ) -> None:
        normed, total = fused_torch.add_rms_norm(x, residual, weight, kind)
        out.copy_(normed)
        if residual is not None:
            residual.copy_(total)

    def rope_kv_write(
        self,
        qkv: torch.Tensor,
        layout: HeadLayout,
        rope: Rope,
        slots: torch.Tensor,
        cache: LayerCache,
        norms: Norms | None,
    ) -> torch.Tensor:
        return fused_torch.rope_kv_write(qkv, layout, rope, slots, (cache.k, cache.v), norms, cache.scales)

    def gated_activation(self, gate_up: torch.Tensor, activation: Activation, out: torch.Tensor) -> None:
        out.copy_(fused_torch.gated_activation(gate_up, activation))

    def attend(self, q: torch.Tensor, cache: LayerCache, step: DeviceStep, variant: AttentionVariant) -> torch.Tensor:
        out = q.new_zeros(q.shape[1], q.shape[0], cache.v.shape[3])
        starts = step.inputs.query_starts.tolist()
        for row, context_len in enumerate(step.inputs.context_lens.tolist()):
            if context_len:
                tokens = slice(starts[row], starts[row + 1])
                block_ids = step.block_tables[row, : -(-context_len // cache.block_size)].long()
                out[tokens] = attend_sequence(q[:, tokens], cache, block_ids, context_len, variant)
        return out
