"""A lean forward pass for Llama-like models on a CPU: packed products and one kernel per gap between them.

It is taken only where the module classes are exactly the ones whose arithmetic is repeated here, and only after its
logits agreed with transformers' own on a probe; every other model runs through transformers' forward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from batching.attention.cpu_backend import CpuBackend, knobs_of
from batching.attention.reference import AttentionVariant
from batching.kernels import layer_cpu
from batching.kernels.views import as_array
from batching.kv_cache import KVCachePool, LayerCache
from batching.model_loader import LoadedModel
from batching.packed_linear import Linear, can_pack, padded_rows
from batching.step_input import StepInput

RECOGNISED = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
PARALLEL_MIN_ROWS = 16
"""Rows from which the small kernels are spread over the threads."""


def is_recognised(loaded: LoadedModel) -> bool:
    """True for exactly the model classes, activation and device that this module repeats."""
    config = loaded.config
    return type(loaded.model) in RECOGNISED and loaded.device.type == "cpu" and config.hidden_act == "silu"


class FusedLayer:
    """One decoder layer: its four products, its norms, and its cache. Owner: FusedForward."""

    def __init__(self, module: Any, cache: LayerCache, variant: AttentionVariant, *, is_packed: bool) -> None:
        attention, mlp = module.self_attn, module.mlp
        self.cache = cache
        self.variant = variant
        self.head_dim = int(attention.head_dim)
        self.num_heads = int(attention.q_proj.out_features) // self.head_dim
        self.knobs = knobs_of(variant)
        self.k, self.v = as_array(cache.k), as_array(cache.v)
        self.qkv = _concatenated([attention.q_proj, attention.k_proj, attention.v_proj], is_packed=is_packed)
        self.o = _concatenated([attention.o_proj], is_packed=is_packed)
        self.gate_up = _concatenated([mlp.gate_proj, mlp.up_proj], is_packed=is_packed)
        self.down = _concatenated([mlp.down_proj], is_packed=is_packed)
        self.input_norm = _float_weight(module.input_layernorm)
        self.post_norm = _float_weight(module.post_attention_layernorm)
        empty = np.zeros(0, np.float32)
        q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        self.norms = (
            empty if q_norm is None else _float_weight(q_norm),
            empty if k_norm is None else _float_weight(k_norm),
            0.0 if q_norm is None else float(q_norm.variance_epsilon),
        )


class FusedForward:
    """model_runner.Forward for the recognised classes. Owner: the runner thread."""

    def __init__(self, loaded: LoadedModel, pool: KVCachePool, backend: CpuBackend) -> None:
        base: Any = loaded.model.model
        is_packed = can_pack(loaded.dtype, loaded.device)
        self._backend = backend
        # A copy of its own: the loaded tensor would keep the whole checkpoint file mapped.
        self._embedding: torch.Tensor = base.embed_tokens.weight.data.clone()
        self._layers = [
            FusedLayer(module, cache, probe, is_packed=is_packed)
            for module, cache, probe in zip(base.layers, pool.layers, loaded.layer_variants, strict=True)
        ]
        self._final_norm = _float_weight(base.norm)
        self._eps = float(loaded.config.rms_norm_eps)
        head: Any = loaded.model.lm_head
        self._head = Linear(head.weight.data, head.bias, is_packed=is_packed)
        positions = torch.arange(loaded.max_model_len)[None]
        cos, sin = base.rotary_emb(torch.zeros(1, 1, 1, dtype=torch.float32), positions)
        half = cos.shape[-1] // 2
        self._cos, self._sin = (table[0, :, :half].float().contiguous().numpy() for table in (cos, sin))

    def __call__(self, step: StepInput) -> torch.Tensor:
        self._backend.begin(step)
        x = torch.nn.functional.embedding(torch.from_numpy(step.ids), self._embedding)
        rows = StepRows(step, self._layers[0], x)
        residual = np.zeros(x.shape, np.float32)
        norm = layer_cpu.add_rms_norm if rows.is_wide else layer_cpu.add_rms_norm_serial
        for layer in self._layers:
            norm(residual, as_array(x), layer.input_norm, self._eps, rows.normed_array)
            attended = self._attend(layer, rows)
            norm(residual, as_array(attended), layer.post_norm, self._eps, rows.normed_array)
            x = self._feed_forward(layer, rows)
        return self._logits(residual, x, np.array(step.logit_rows, np.int64))

    def _attend(self, layer: FusedLayer, rows: StepRows) -> torch.Tensor:
        qkv = layer.qkv(rows.normed)
        rope = (self._cos, self._sin, rows.step.positions)
        slots = (rows.step.block_of, rows.step.offset_of)
        rope_write = layer_cpu.rope_write if rows.is_wide else layer_cpu.rope_write_serial
        rope_write(as_array(qkv)[: rows.num_tokens], rope, layer.norms, slots, layer.k, layer.v, rows.q_array)
        self._backend.attend(layer.cache, rows.q, rows.attended_heads, layer.variant, layer.knobs)
        return layer.o(rows.attended)[: rows.num_tokens]

    def _feed_forward(self, layer: FusedLayer, rows: StepRows) -> torch.Tensor:
        gate_up = layer.gate_up(rows.normed)
        silu_mul = layer_cpu.silu_mul if rows.is_wide else layer_cpu.silu_mul_serial
        silu_mul(as_array(gate_up)[: rows.num_tokens], rows.activated_array)
        return layer.down(rows.activated)[: rows.num_tokens]

    def _logits(self, residual: Any, x: torch.Tensor, logit_rows: Any) -> torch.Tensor:
        """Final norm and output matrix, for the last row of each sequence only."""
        num_rows = len(logit_rows)
        last = x[torch.from_numpy(logit_rows)]
        final = last.new_zeros(padded_rows(num_rows), last.shape[1])
        out = as_array(final)[:num_rows]
        layer_cpu.add_rms_norm_serial(residual[logit_rows], as_array(last), self._final_norm, self._eps, out)
        return self._head(final)[:num_rows]


class StepRows:
    """The buffers of one step: T rows in use, padded with zeros to a size whose products oneDNN knows already."""

    def __init__(self, step: StepInput, layer: FusedLayer, x: torch.Tensor) -> None:
        self.step = step
        self.num_tokens, hidden = x.shape
        self.is_wide = self.num_tokens >= PARALLEL_MIN_ROWS
        num_rows = padded_rows(self.num_tokens)
        self.normed = x.new_zeros(num_rows, hidden)
        self.normed_array = as_array(self.normed)[: self.num_tokens]
        self.activated = x.new_zeros(num_rows, layer.gate_up.out_features // 2)
        self.activated_array = as_array(self.activated)[: self.num_tokens]
        self.q = x.new_empty(self.num_tokens, layer.num_heads, layer.head_dim)
        self.q_array = as_array(self.q)
        self.attended = x.new_zeros(num_rows, layer.num_heads * layer.head_dim)
        self.attended_heads = self.attended[: self.num_tokens].view(self.q.shape)


def _concatenated(linears: list[Any], *, is_packed: bool) -> Linear:
    """One product for several that read the same input; their weights stand one after the other."""
    weight = torch.cat([linear.weight.data for linear in linears])
    bias = None
    if any(linear.bias is not None for linear in linears):
        bias = torch.cat([_bias_or_zeros(linear) for linear in linears])
    for linear in linears:
        del linear.weight  # the model is not run again: its copy of the weights goes at once
    return Linear(weight, bias, is_packed=is_packed)


def _bias_or_zeros(linear: Any) -> torch.Tensor:
    bias: torch.Tensor = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.data
    return bias


def _float_weight(norm: Any) -> Any:
    """A norm's weight as float32 `[dim]`."""
    return norm.weight.data.float().contiguous().numpy()
