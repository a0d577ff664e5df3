"""The models that are measured: real configurations whose weights are random, and a toy for machines without a GPU.

Owns the numbers that decide cost, and the bytes and operations that follow from them. Knows no device and no torch.
"""

from __future__ import annotations

import msgspec

WEIGHT_BYTES = 2
"""Of one number in bfloat16."""


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder with grouped queries and a gated MLP, as its config.json describes it."""

    name: str
    model_type: str
    """As transformers calls the family."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    is_tied: bool
    """The output matrix is the embedding."""
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: dict[str, object]

    @property
    def linear_parameters(self) -> int:
        """Of the matrices that every token is multiplied with, the output matrix left out."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def head_parameters(self) -> int:
        """Of the output matrix."""
        return self.hidden_size * self.vocab_size

    @property
    def step_weight_bytes(self) -> int:
        """What a step that samples reads of the weights; of an embedding it reads a few rows."""
        return (self.linear_parameters + self.head_parameters) * WEIGHT_BYTES

    def kv_token_bytes(self, kv_item_bytes: int) -> int:
        """Keys and values of one token in all layers."""
        return self.num_layers * 2 * self.num_kv_heads * self.head_dim * kv_item_bytes

    def config_fields(self) -> dict[str, object]:
        """What transformers' configuration class takes; token 0 ends a sequence."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocab_size,
            "tie_word_embeddings": self.is_tied,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": self.rope_parameters,
            "bos_token_id": None,
            "eos_token_id": 0,
            "pad_token_id": 0,
        }


MODELS = {
    "toy": ModelSize(
        name="toy",
        model_type="llama",
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=128,
        vocab_size=1024,
        is_tied=True,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    ),
    "qwen3-0.6b": ModelSize(
        name="qwen3-0.6b",
        model_type="qwen3",
        hidden_size=1024,
        num_layers=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=3072,
        vocab_size=151_936,
        is_tied=True,
        max_position_embeddings=40_960,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    ),
    "llama-3.1-8b": ModelSize(
        name="llama-3.1-8b",
        model_type="llama",
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=14_336,
        vocab_size=128_256,
        is_tied=False,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
}
