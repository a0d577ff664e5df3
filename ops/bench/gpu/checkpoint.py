"""Writes a checkpoint of random weights, drawn on the device itself, with a tokenizer so that HTTP can be served."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from ops.bench.gpu.model_sizes import ModelSize
from ops.bench.random_model import EMBEDDING_STD, build_tokenizer

SEED = 0
MAX_SHARD_BYTES = 4 * 1024**3
LAYER_GAIN = 2.4
"""Deviation of a matrix of a layer times the square root of its inputs: see ops.bench.random_model."""
DONE = "written"
"""A file that is there once everything else is."""


def ensure_checkpoint(model: ModelSize, directory: Path, device: torch.device) -> float:
    """Write it unless it is there; returns the seconds that it took."""
    began_s = time.monotonic()
    if not (directory / DONE).exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_weights(model, directory, device)
        build_tokenizer(model.vocab_size).save_pretrained(directory)
        (directory / DONE).touch()
    return time.monotonic() - began_s


def write_weights(model: ModelSize, directory: Path, device: torch.device) -> None:
    """Configuration, and bfloat16 weights in shards; at no time is more than one shard in memory."""
    config = AutoConfig.for_model(model.model_type, **model.config_fields(), dtype=torch.bfloat16)
    with torch.device("meta"):
        described = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(described).__name__]
    config.save_pretrained(directory)
    generator = torch.Generator(device).manual_seed(SEED)
    writer = _ShardWriter(directory)
    for name, parameter in described.named_parameters():  # a tied matrix is named once
        writer.add(name, _draw(name, parameter.shape, generator).cpu())
    writer.close()


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """One parameter on the generator's device."""
    tensor = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    if "norm" in name:
        return tensor.fill_(1.0)
    is_embedding = "embed" in name or "lm_head" in name
    deviation = EMBEDDING_STD if is_embedding else LAYER_GAIN / shape[-1] ** 0.5
    return tensor.normal_(0.0, deviation, generator=generator)


class _ShardWriter:
    """Collects tensors until a shard is full. Life cycle: add as often as wanted -> close."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shard: dict[str, torch.Tensor] = {}
        self._num_bytes = 0
        self._total_bytes = 0
        self._file_of: dict[str, str] = {}
        self._num_shards = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        num_bytes = tensor.numel() * tensor.element_size()
        if self._shard and self._num_bytes + num_bytes > MAX_SHARD_BYTES:
            self._write()
        self._shard[name] = tensor
        self._num_bytes += num_bytes

    def close(self) -> None:
        """Write what is left, and the index."""
        self._write()
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": self._file_of}
        (self._directory / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))

    def _write(self) -> None:
        self._num_shards += 1
        file = f"model-{self._num_shards:05d}.safetensors"
        save_file(self._shard, self._directory / file, metadata={"format": "pt"})
        self._file_of |= dict.fromkeys(self._shard, file)
        self._total_bytes += self._num_bytes
        self._shard, self._num_bytes = {}, 0
