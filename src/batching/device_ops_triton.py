"""The operations of a step in Triton: launches alone, nothing waits. Import only where Triton can be imported."""

from __future__ import annotations

import torch

from batching.attention.reference import AttentionVariant
from batching.device_ops import DeviceStep, Norms, Rope
from batching.kernels import (
    gated_activation_triton,
    rms_norm_triton,
    rope_kv_write_triton,
    sampler_triton,
    step_input_triton,
)
from batching.kernels.fused_torch import Activation, HeadLayout, NormKind
from batching.kernels.paged_attention import PagedBatch, attend_paged
from batching.kernels.sampler_buffers import SamplerBuffers
from batching.kernels.step_input_torch import StepInputs
from batching.kv_cache import LayerCache
from batching.row_tables import RowTables


class TritonOps:
    """batching.device_ops.DeviceOps with our kernels. Owner: the runner thread."""

    is_capturable = True

    def apply_differences(self, tables: RowTables, packed: torch.Tensor) -> None:
        step_input_triton.apply_differences(tables, packed)

    def build_inputs(self, tables: RowTables, plan: torch.Tensor, inputs: StepInputs) -> None:
        step_input_triton.build_inputs(tables, plan, inputs)

    def commit_tokens(self, tables: RowTables, plan: torch.Tensor, inputs: StepInputs, sampled: torch.Tensor) -> None:
        step_input_triton.commit_tokens(tables, plan, inputs, sampled)

    def sample(self, logits: torch.Tensor, inputs: StepInputs, tables: RowTables, buffers: SamplerBuffers) -> None:
        sampler_triton.sample(logits, inputs.logit_rows, inputs.num_sampling, tables, None, buffers)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, kind: NormKind, out: torch.Tensor
    ) -> None:
        rms_norm_triton.add_rms_norm(x, residual, weight, kind, out)

    def rope_kv_write(
        self,
        qkv: torch.Tensor,
        layout: HeadLayout,
        rope: Rope,
        slots: torch.Tensor,
        cache: LayerCache,
        norms: Norms | None,
    ) -> torch.Tensor:
        q = qkv.new_empty(qkv.shape[0], layout.num_heads, layout.k_dim)
        rope_kv_write_triton.rope_kv_write(qkv, layout, rope, slots, (cache.k, cache.v), q, norms, cache.scales)
        return q

    def gated_activation(self, gate_up: torch.Tensor, activation: Activation, out: torch.Tensor) -> None:
        gated_activation_triton.gated_activation(gate_up, activation, out)

    def attend(self, q: torch.Tensor, cache: LayerCache, step: DeviceStep, variant: AttentionVariant) -> torch.Tensor:
        inputs, bounds = step.inputs, step.bounds
        batch = PagedBatch(
            query_starts=inputs.query_starts,
            context_lens=inputs.context_lens,
            tables=step.block_tables,
            part_starts=inputs.part_starts,
            num_parts=bounds.num_parts,
            max_context_len=bounds.max_context_len,
            max_short_queries=bounds.max_short_queries,
            has_chunks=bounds.has_chunks,
        )
        rows = q if q.stride(2) == 1 else q.contiguous()
        return attend_paged(rows, cache.k, cache.v, batch, variant, scales=(cache.k_scale, cache.v_scale))
