"""Tiny random checkpoints, one per family, and what plain transformers generates from them.

Owns the weights' seeds and the certainty of the references: a seed is taken only when the greedy output has mostly
distinct tokens and never a near-tie, so that parity tests need no tolerance. Knows nothing of the engine.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from transformers import AutoModelForCausalLM

VOCAB_SIZE = 128
MAX_MODEL_LEN = 160
NUM_NEW_TOKENS = 24
PROMPT_LENS = (1, 2, 5, 8, 17, 33, 47, 60)
MIN_TOP_GAP = 1e-3
"""Smallest difference of the two largest logits; fp32 paths of these models differ by less than 1e-4."""
MIN_DISTINCT_FRACTION = 0.4
NUM_MODEL_SEEDS = 4
NUM_PROMPT_SEEDS = 12
SMALL_WINDOW = 8

GQA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
ALTERNATING = ["sliding_attention", "full_attention"]
ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ROPE_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 128,
}
ROPE_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GQA),
    "llama31": ("LlamaConfig", GQA | {"rope_parameters": ROPE_LLAMA3}),
    "qwen2": ("Qwen2Config", GQA),
    "qwen3": ("Qwen3Config", GQA | {"head_dim": 32}),
    "mistral_window": ("MistralConfig", GQA | {"sliding_window": SMALL_WINDOW}),
    "gemma2": (
        "Gemma2Config",
        GQA
        | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": SMALL_WINDOW, "layer_types": ALTERNATING}
        # Small enough that the tanh bends the scores of these weights.
        | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        GQA | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": SMALL_WINDOW, "layer_types": ALTERNATING},
    ),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "phi3": ("Phi3Config", GQA),
    "smollm3": ("SmolLM3Config", GQA | {"num_hidden_layers": 3, "no_rope_layers": [1, 0, 1]}),
    "gpt_neox": ("GPTNeoXConfig", GQA),
    "opt": (
        "OPTConfig",
        {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"max_position_embeddings": 512, "word_embed_proj_dim": 64},
    ),
    "mixtral": ("MixtralConfig", GQA | MOE),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        GQA | {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "gpt_oss": (
        "GptOssConfig",
        GQA | MOE | {"head_dim": 16, "sliding_window": SMALL_WINDOW, "layer_types": ALTERNATING},
    ),
    "olmo2": ("Olmo2Config", GQA),
    "granite": (
        "GraniteConfig",
        GQA | {"attention_multiplier": 0.3, "residual_multiplier": 0.7, "embedding_multiplier": 2.0},
    ),
    "starcoder2": ("Starcoder2Config", GQA),
    "stablelm": ("StableLmConfig", GQA),
    "cohere2": ("Cohere2Config", GQA | {"sliding_window": SMALL_WINDOW, "layer_types": ALTERNATING}),
    "glm4": ("Glm4Config", GQA | {"head_dim": 16}),
    "phi": ("PhiConfig", GQA),
    # Served only below the length at which their RoPE starts to depend on the batch.
    "phi3_longrope": (
        "Phi3Config",
        GQA | {"rope_parameters": ROPE_LONGROPE, "original_max_position_embeddings": 128},
    ),
    "llama_dynamic": ("LlamaConfig", GQA | {"rope_parameters": ROPE_DYNAMIC}),
}

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
MORE_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", GQA | {"head_dim": 16}),
    "vaultgemma": ("VaultGemmaConfig", GQA | {"head_dim": 16}),
    "olmo": ("OlmoConfig", GQA),
    "olmo3": ("Olmo3Config", GQA | {"sliding_window": SMALL_WINDOW, "layer_types": ALTERNATING}),
    "olmoe": ("OlmoeConfig", GQA | EXPERTS),
    "flex_olmo": ("FlexOlmoConfig", GQA | EXPERTS),
    "cohere": ("CohereConfig", GQA),
    "exaone4": ("Exaone4Config", GQA | {"sliding_window": SMALL_WINDOW, "layer_types": ALTERNATING}),
    "seed_oss": ("SeedOssConfig", GQA),
    "ernie45": ("Ernie4_5Config", GQA),
    "arcee": ("ArceeConfig", GQA),
    "helium": ("HeliumConfig", GQA | {"head_dim": 16}),
    "persimmon": ("PersimmonConfig", GQA),
    "nemotron": ("NemotronConfig", GQA),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        GQA | EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "glm": ("GlmConfig", GQA | {"head_dim": 16}),
    "granite_moe": ("GraniteMoeConfig", GQA | MOE),
    "phimoe": ("PhimoeConfig", GQA | MOE),
    "minimax_m2": ("MiniMaxM2Config", GQA | MOE | {"head_dim": 16}),
    "bitnet": ("BitNetConfig", GQA),
    "gpt_bigcode": ("GPTBigCodeConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "biogpt": ("BioGptConfig", {name: value for name, value in GQA.items() if name != "num_key_value_heads"}),
    "deepseek_v3": (
        "DeepseekV3Config",
        GQA
        | {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 16, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8}
        | {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    ),
}
"""Checked for parity in the slow run only."""


class Reference(msgspec.Struct, frozen=True):
    """A saved checkpoint, prompts, and the greedy continuation of each by plain transformers."""

    path: Path
    prompts: list[list[int]]
    outputs: list[list[int]]


def make_config(name: str, **overrides: Any) -> Any:
    """The tiny config of a family; no token of it ends a sequence."""
    class_name, fields = (FAMILIES | MORE_FAMILIES)[name]
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    values = {"vocab_size": VOCAB_SIZE, "tie_word_embeddings": False} | special | fields | overrides
    return getattr(transformers, class_name)(**values)


def make_model(config: Any, seed: int) -> torch.nn.Module:
    """A random float32 model whose weights are wide enough that every token matters to the output."""
    torch.manual_seed(seed)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or "ln_" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" in parameter_name or "wte" in parameter_name or "wpe" in parameter_name:
                parameter.normal_(std=1.0)
            elif parameter.dim() >= 2:
                parameter.normal_(std=1.5 * parameter.shape[-1] ** -0.5)
            else:
                parameter.normal_(std=1.0 if "sinks" in parameter_name else 0.1)
    return model.eval()


def save(model: torch.nn.Module, directory: Path) -> Path:
    """Write config.json and model.safetensors; returns the directory."""
    model.save_pretrained(directory)  # type: ignore[operator]
    return directory


def make_prompt(length: int, seed: int) -> list[int]:
    """A random prompt."""
    draw = random.Random(seed)
    return [draw.randrange(VOCAB_SIZE) for _ in range(length)]


def greedy(model: torch.nn.Module, prompt: list[int], num_tokens: int) -> tuple[list[int], float]:
    """transformers' own greedy continuation and the smallest gap between the two largest logits on the way."""
    result = model.generate(  # type: ignore[operator]
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=num_tokens,
        min_new_tokens=None,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    top = torch.cat(result.logits).float().topk(2, dim=-1).values
    return result.sequences[0, len(prompt) :].tolist(), float((top[:, 0] - top[:, 1]).min())


def is_certain(tokens: list[int], gap: float) -> bool:
    """Mostly distinct tokens and no near-tie: another correct computation must give the same."""
    return gap > MIN_TOP_GAP and len(set(tokens)) >= MIN_DISTINCT_FRACTION * len(tokens)


def certain_prompt(model: torch.nn.Module, length: int, seed: int) -> tuple[list[int], list[int]] | None:
    """The first of a few random prompts whose greedy continuation is certain, and that; None if there is none."""
    for attempt in range(NUM_PROMPT_SEEDS):
        prompt = make_prompt(length, 1000 * seed + attempt)
        tokens, gap = greedy(model, prompt, NUM_NEW_TOKENS)
        if is_certain(tokens, gap):
            return prompt, tokens
    return None


def make_reference(name: str, directory: Path) -> Reference:
    """Build and save the family's checkpoint with the first seed that gives certain output at every prompt length."""
    config = make_config(name)
    for seed in range(NUM_MODEL_SEEDS):
        model = make_model(config, seed)
        found = [certain_prompt(model, length, seed) for length in PROMPT_LENS]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) == len(PROMPT_LENS):
            path = save(model, directory / name)
            return Reference(path, [prompt for prompt, _ in pairs], [tokens for _, tokens in pairs])
    raise AssertionError(f"{name}: no seed gives certain greedy output; widen the weights")


class TinyModels:
    """Builds the reference of a family when it is first asked for. Owner: the test session."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._references: dict[str, Reference] = {}

    def reference(self, name: str) -> Reference:
        """The family's checkpoint with what transformers generates from it."""
        if name not in self._references:
            torch.set_num_threads(1)  # faster for tiny matrices, and kinder to a busy machine
            self._references[name] = make_reference(name, self._directory)
        return self._references[name]
