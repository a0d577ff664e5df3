"""Which checkpoints can be served correctly; every other one is refused with a sentence before it answers wrongly."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from batching.attention.paged_layer import LayerProbe
from batching.attention.reference import AttentionVariant
from batching.kv_cache import LayerShape
from contracts.errors import ModelNotUsable

SERVABLE_LAYER_TYPES = {"full_attention", "sliding_attention", "attention"}
DYNAMIC_ROPE_TYPES = {"dynamic", "longrope"}
"""These read the largest position of the whole packed batch, so a sequence's result would depend on its mates."""

LARGEST_SIZES = {
    "num_hidden_layers": 1024,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**14,
    "vocab_size": 2**24,
    "max_position_embeddings": 2**28,
}
"""Ten times what the largest published models have: a config beyond these is broken, and building it takes for ever."""


class ProbedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One attention module of a gated model."""

    module: torch.nn.Module
    shape: LayerShape
    variant: AttentionVariant


def check_config(config: Any) -> None:
    """Raise ModelNotUsable for what the config alone rules out."""
    name = getattr(config, "model_type", "?")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelNotUsable(f"model type {name!r} is an encoder-decoder; only decoder-only language models are served")
    layer_types = set(getattr(config, "layer_types", None) or ())
    foreign = sorted(layer_types - SERVABLE_LAYER_TYPES)
    if foreign:
        raise ModelNotUsable(
            f"model type {name!r} has layers of type {', '.join(foreign)}, whose state is not in a paged KV cache; "
            "serve a model whose layers are all full or sliding attention"
        )
    _check_sizes(config.get_text_config())


def _check_sizes(config: Any) -> None:
    for field, largest in LARGEST_SIZES.items():
        sizes = getattr(config, field, None)
        for size in sizes if isinstance(sizes, list) else [sizes]:  # some families give one size for each layer
            if size is not None and (not isinstance(size, int) or not 1 <= size <= largest):
                raise ModelNotUsable(f"config.json gives {field} as {size!r}; it must be between 1 and {largest}")


def usable_model_len(config: Any, wanted: int | None) -> int:
    """The window to serve: as wanted, else the model's own, never one that its RoPE would treat batch-dependently."""
    own = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 2048)
    limit = min([own, *_dynamic_rope_limits(config)])
    if wanted is None:
        return limit
    if wanted > limit:
        raise ModelNotUsable(
            f"--max-model-len {wanted} is above the {limit} tokens this model can be served with: lower it, or leave "
            "it out"
        )
    return wanted


def _dynamic_rope_limits(config: Any) -> list[int]:
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    per_type = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    limits = []
    for rope in per_type:
        if rope.get("rope_type", rope.get("type")) in DYNAMIC_ROPE_TYPES:
            original = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            limits.append(int(original or config.max_position_embeddings))
    return limits


@torch.inference_mode()
def probe_layers(model: torch.nn.Module, config: Any) -> list[ProbedLayer]:
    """Run two tokens, twice, and return the attention modules in layer order with what they store and do.

    Raises ModelNotUsable unless every decoder layer called the registered attention function exactly once, causally
    and without a mask of its own, and the positions given reached the keys: only then does the whole context of the
    model live in the paged cache, and only then does a packed step compute what transformers computes.
    """
    name = getattr(config, "model_type", "?")
    _run_two_tokens(model, name, first_position=0)
    probed = [module for module in model.modules() if isinstance(getattr(module, "paged_layer", None), LayerProbe)]
    probed.sort(key=lambda module: int(getattr(module, "layer_idx", -1)))
    probes: list[Any] = [module.paged_layer for module in probed]
    indices = [getattr(module, "layer_idx", None) for module in probed]
    num_layers = int(config.num_hidden_layers)
    if indices != list(range(num_layers)) or any(probe.num_calls != 1 for probe in probes):
        raise ModelNotUsable(
            f"model type {name!r} has {num_layers} layers but {len(probed)} of them use transformers' attention "
            "interface; the others keep a state of their own that a paged KV cache does not hold, so it is refused "
            "rather than served wrongly"
        )
    if any(not getattr(module, "is_causal", True) for module in probed):
        raise ModelNotUsable(f"model type {name!r} attends to later tokens too; only causal language models are served")
    if any(probe.has_mask for probe in probes):
        raise ModelNotUsable(f"model type {name!r} brings an attention mask of its own, which paged attention ignores")
    keys = [probe.last_key for probe in probes]
    _run_two_tokens(model, name, first_position=2)
    if all(torch.equal(key, probe.last_key) for key, probe in zip(keys, probes, strict=True)):
        raise ModelNotUsable(f"model type {name!r} ignores position_ids, so its sequences cannot share a packed step")
    return [_probed(module) for module in probed]


def _run_two_tokens(model: torch.nn.Module, name: str, first_position: int) -> None:
    device = next(model.parameters()).device
    ids = torch.tensor([[0, 1]], device=device)
    try:
        model(input_ids=ids, position_ids=ids + first_position, use_cache=False)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise ModelNotUsable(f"model type {name!r} cannot run a packed step ({error}); it is not supported") from error


def _probed(module: torch.nn.Module) -> ProbedLayer:
    probe: Any = module.paged_layer
    return ProbedLayer(module=module, shape=probe.shape, variant=probe.variant)
