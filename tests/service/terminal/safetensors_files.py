"""Whole little checkpoints for tests that then break them: a header, the bytes that it promises, and a config."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.fakes import write_byte_model

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
    "vocab_size": 258,
    "max_position_embeddings": 64,
}
SHAPES = {
    "model.embed_tokens.weight": [258, 8],
    "model.layers.0.mlp.up_proj.weight": [16, 8],
    "model.layers.1.mlp.up_proj.weight": [16, 8],
}


def write_tensors(path: Path, shapes: dict[str, list[int]]) -> Path:
    """Zeros in float32, one tensor behind the other."""
    at = 0
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        end = at + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(at))
    return path


def write_checkpoint(directory: Path, shapes: dict[str, list[int]] | None = None, **config: Any) -> Path:
    """With tokenizer and chat template."""
    write_byte_model(directory)
    (directory / "config.json").write_text(json.dumps({**CONFIG, **config}))
    write_tensors(directory / "model.safetensors", SHAPES if shapes is None else shapes)
    return directory
