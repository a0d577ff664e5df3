"""A lean forward pass over device rows for Llama-like models: fused products, one operation per gap between them.

It serves exactly the module classes whose arithmetic is repeated here, and rounds where transformers rounds. Whether
it may serve at all is decided by its logits, in batching.device_forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from batching.attention.reference import AttentionVariant
from batching.device_ops import DeviceOps, DeviceStep, Norms
from batching.kernels.fused_torch import HeadLayout, NormKind
from batching.kv_cache import KVCachePool, LayerCache
from batching.model_gate import DYNAMIC_ROPE_TYPES
from batching.model_loader import LoadedModel
from batching.packed_linear import Linear

RECOGNISED = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


def is_recognised(loaded: LoadedModel) -> bool:
    """True for exactly the model classes, activation, products and rotary positions that this module repeats."""
    config, model = loaded.config, loaded.model
    rope = getattr(config, "rope_parameters", None) or {}
    is_fixed = rope.get("rope_type", "default") not in DYNAMIC_ROPE_TYPES
    if type(model) not in RECOGNISED or config.hidden_act != "silu" or not is_fixed:
        return False
    products = [module for name, module in model.named_modules() if name.endswith(("_proj", "lm_head"))]
    return all(type(product) is torch.nn.Linear for product in products)


class DeviceLayer:
    """One decoder layer: its four products, its norms, its cache. Owner: DeviceLlama."""

    def __init__(self, module: Any, cache: LayerCache, variant: AttentionVariant) -> None:
        attention, mlp = module.self_attn, module.mlp
        self.cache = cache
        self.variant = variant
        head_dim = int(attention.head_dim)
        self.layout = HeadLayout(
            num_heads=int(attention.q_proj.out_features) // head_dim,
            num_kv_heads=int(attention.k_proj.out_features) // head_dim,
            k_dim=head_dim,
            v_dim=head_dim,
        )
        self.qkv = _taken_over([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o = _taken_over([attention.o_proj])
        self.gate_up = _taken_over([mlp.gate_proj, mlp.up_proj])
        self.down = _taken_over([mlp.down_proj])
        self.input_norm: torch.Tensor = module.input_layernorm.weight.data
        self.post_norm: torch.Tensor = module.post_attention_layernorm.weight.data
        self.head_norms: Norms | None = None
        if hasattr(attention, "q_norm"):
            kind = NormKind(eps=float(attention.q_norm.variance_epsilon))
            self.head_norms = attention.q_norm.weight.data, attention.k_norm.weight.data, kind


class DeviceLlama:
    """device_forward.DeviceForward for the recognised classes. Owner: the runner thread."""

    def __init__(self, loaded: LoadedModel, pool: KVCachePool, ops: DeviceOps, max_len: int) -> None:
        """Takes the weights out of the loaded model, layer by layer; positions are below `max_len`."""
        model: Any = loaded.model
        self._ops = ops
        self._embedding: torch.Tensor = model.model.embed_tokens.weight.data
        self._layers = [
            DeviceLayer(module, cache, variant)
            for module, cache, variant in zip(model.model.layers, pool.layers, loaded.layer_variants, strict=True)
        ]
        self._kind = NormKind(eps=float(loaded.config.rms_norm_eps))
        self._final_norm: torch.Tensor = model.model.norm.weight.data
        self._head = Linear(model.lm_head.weight.data, model.lm_head.bias, is_packed=False)
        positions = torch.arange(max_len, device=loaded.device)[None]
        like = torch.zeros(1, 1, 1, dtype=torch.float32, device=loaded.device)
        cos, sin = model.model.rotary_emb(like, positions)
        half = cos.shape[-1] // 2
        self._cos, self._sin = (table[0, :, :half].float().contiguous() for table in (cos, sin))

    def __call__(self, step: DeviceStep) -> torch.Tensor:
        ops, kind = self._ops, self._kind
        residual = functional.embedding(step.inputs.ids, self._embedding)
        normed = torch.empty_like(residual)
        x: torch.Tensor | None = None
        for layer in self._layers:
            self._add_norm(x, residual, layer.input_norm, normed)
            x = self._attended(layer, normed, step)
            ops.add_rms_norm(x, residual, layer.post_norm, kind, normed)
            x = self._fed_forward(layer, normed)
        rows = step.inputs.logit_tokens.long()
        residual = residual[rows]
        final = torch.empty_like(residual)
        self._add_norm(None if x is None else x[rows], residual, self._final_norm, final)
        return self._head(final)

    def _add_norm(
        self, x: torch.Tensor | None, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor
    ) -> None:
        """residual += x where there is one, then its norm."""
        if x is None:
            self._ops.add_rms_norm(residual, None, weight, self._kind, out)
        else:
            self._ops.add_rms_norm(x, residual, weight, self._kind, out)

    def _attended(self, layer: DeviceLayer, normed: torch.Tensor, step: DeviceStep) -> torch.Tensor:
        inputs = step.inputs
        rope = (self._cos, self._sin, inputs.positions)
        qkv = layer.qkv(normed)
        q = self._ops.rope_kv_write(qkv, layer.layout, rope, inputs.slots, layer.cache, layer.head_norms)
        heads = self._ops.attend(q.transpose(0, 1), layer.cache, step, layer.variant)
        return layer.o(heads.view(heads.shape[0], -1))

    def _fed_forward(self, layer: DeviceLayer, normed: torch.Tensor) -> torch.Tensor:
        gate_up = layer.gate_up(normed)
        activated = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
        self._ops.gated_activation(gate_up, "silu", activated)
        return layer.down(activated)


def _taken_over(linears: list[Any]) -> Linear:
    """One product for several that read the same input; the modules give their weights up, so each exists once."""
    weight = linears[0].weight.data if len(linears) == 1 else torch.cat([linear.weight.data for linear in linears])
    bias = None
    if any(linear.bias is not None for linear in linears):
        bias = torch.cat([_bias_or_zeros(linear) for linear in linears])
    for linear in linears:
        del linear.weight
    return Linear(weight, bias, is_packed=False)


def _bias_or_zeros(linear: Any) -> torch.Tensor:
    bias: torch.Tensor = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.data
    return bias
