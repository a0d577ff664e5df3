"""What the service says of a model's memory without torch is what the engine then takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from batching import kv_cache
from batching.cache_plan import DeviceUse
from batching.engine import allocate_cache
from batching.model_loader import load_model, no_progress
from contracts.model_catalog import ModelProfile
from contracts.settings import EMBEDDED_MODEL, EngineSettings
from service import model_memory
from service.model_facts import read_facts
from service.model_memory import DeviceMemory, MemoryNeed, estimate_memory
from service.ready_models import READY_MODELS
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import FAMILIES, MORE_FAMILIES, make_config, make_model, save

MIB = 2**20
FREE = DeviceMemory(free_bytes=8 * 2**30)
NUM_SMALL_BUFFERS = 16
"""Numbers that a file may hold beside the parameters, such as the biases of a router."""


def write(name: str, directory: Path, **overrides: Any) -> Path:
    return save(make_model(make_config(name, **overrides), 0), directory)


def engine_need(settings: EngineSettings) -> tuple[int, int]:
    """Weights and cache of a real engine, in bytes."""
    loaded = load_model(settings, no_progress)
    pool = allocate_cache(settings, loaded)
    tensors = [tensor for layer in pool.layers for tensor in (layer.k, layer.v)]
    return loaded.weight_bytes, sum(tensor.nbytes for tensor in tensors)


def estimated(settings: EngineSettings) -> MemoryNeed:
    profile = ModelProfile(alias="a", model=settings.model, max_model_len=settings.max_model_len)
    need = estimate_memory(profile, settings, FREE)
    assert need is not None
    return need


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_and_cache_are_those_of_the_engine(name: str, tmp_path: Path) -> None:
    """The cache holds all that two sequences of the model's own window can use, so the windows agree as well."""
    sizes = {"max_model_len": None, "max_num_seqs": 2, "kv_cache_memory": "64MiB"}
    settings = engine_settings(write(name, tmp_path), **sizes)
    need = estimated(settings)
    assert (need.weight_bytes, need.cache_bytes) == engine_need(settings)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "bfloat16"},
        {"kv_dtype": "bfloat16"},
        {"dtype": "bfloat16", "kv_dtype": "float32", "block_size": 32},
        {"max_num_seqs": 2, "kv_cache_memory": "64MiB"},
        {"max_model_len": 33, "max_num_seqs": 1},
    ],
    ids=str,
)
def test_every_setting_that_changes_the_size_is_counted(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    settings = engine_settings(write(name, tmp_path), **{"kv_cache_memory": "1MiB", **fields})
    need = estimated(settings)
    assert (need.weight_bytes, need.cache_bytes) == engine_need(settings)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_tied_output_matrix_is_counted_once_and_its_packed_copy_as_overhead(name: str, tmp_path: Path) -> None:
    settings = engine_settings(write(name, tmp_path, tie_word_embeddings=True), kv_cache_memory="1MiB")
    need = estimated(settings)
    assert (need.weight_bytes, need.cache_bytes) == engine_need(settings)
    assert need.overhead_bytes - model_memory.PROCESS_BYTES == 4 * 128 * 64


def test_embedded_model_is_estimated_as_the_engine_loads_it() -> None:
    settings = EngineSettings(model=EMBEDDED_MODEL, kv_cache_memory="32MiB")
    need = estimated(settings)
    assert (need.weight_bytes, need.cache_bytes) == engine_need(settings)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_type_of_the_file_decides_where_dtype_is_auto(stored: torch.dtype, tmp_path: Path) -> None:
    save(make_model(make_config("llama"), 0).to(stored), tmp_path)
    settings = engine_settings(tmp_path, dtype="auto", kv_cache_memory="1MiB")
    need = estimated(settings)
    assert (need.weight_bytes, need.cache_bytes) == engine_need(settings)


@pytest.mark.parametrize("weight_bytes", [0, 100 * MIB, 3 * 2**30, 30 * 2**30])
@pytest.mark.parametrize("free_bytes", [0, 600 * MIB, 4 * 2**30, 64 * 2**30])
def test_default_cache_is_the_engines(weight_bytes: int, free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "free_memory_bytes", lambda device: free_bytes)
    ours = model_memory.default_cache_bytes(weight_bytes, DeviceMemory(free_bytes=free_bytes), 0.9)
    assert ours == kv_cache.default_cache_bytes(weight_bytes, torch.device("cpu"))


@pytest.mark.parametrize("utilization", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("free_bytes", [0, 600 * MIB, 4 * 2**30, 64 * 2**30])
def test_default_cache_of_a_gpu_is_the_engines_with_an_assumed_step(free_bytes: int, utilization: float) -> None:
    total = 64 * 2**30
    use = DeviceUse(
        total_bytes=total,
        used_bytes=total - free_bytes,
        peak_bytes=model_memory.GPU_CONTEXT_BYTES,
        utilization=utilization,
    )
    memory = DeviceMemory(free_bytes=free_bytes, gpu_total_bytes=total)
    assert model_memory.default_cache_bytes(0, memory, utilization) == use.cache_bytes


def test_shards_are_counted_as_their_index_lists_them(tmp_path: Path) -> None:
    model = make_model(make_config("llama"), 0)
    model.save_pretrained(tmp_path, max_shard_size="60KB")  # type: ignore[operator]
    assert not (tmp_path / "model.safetensors").exists()
    (tmp_path / "consolidated.safetensors").write_bytes(b"not counted")
    assert read_facts(tmp_path).num_weights == sum(parameter.numel() for parameter in model.parameters())


LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8}
GEMMA3 = {"vocab_size": 262144, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_layer": 12, "n_embd": 768, "n_head": 12}),
    "gpt2-medium": ("GPT2Config", {"n_layer": 24, "n_embd": 1024, "n_head": 16}),
    "gpt2-large": ("GPT2Config", {"n_layer": 36, "n_embd": 1280, "n_head": 20}),
    "gpt2-xl": ("GPT2Config", {"n_layer": 48, "n_embd": 1600, "n_head": 25}),
    "distilgpt2": ("GPT2Config", {"n_layer": 6, "n_embd": 768, "n_head": 12}),
    "llama-3.2-1b": (
        "LlamaConfig",
        LLAMA
        | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
        | {"tie_word_embeddings": True},
    ),
    "llama-3.2-3b": (
        "LlamaConfig",
        LLAMA
        | {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24}
        | {"tie_word_embeddings": True},
    ),
    "llama-3.1-8b": (
        "LlamaConfig",
        LLAMA | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    ),
    "gemma-3-270m": (
        "Gemma3TextConfig",
        GEMMA3 | {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18},
    ),
    "gemma-3-1b-pt": (
        "Gemma3TextConfig",
        GEMMA3 | {"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26},
    ),
    "gemma-2-2b": (
        "Gemma2Config",
        {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26}
        | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
    ),
}


@pytest.mark.parametrize("alias", PUBLISHED)
def test_size_of_a_ready_entry_is_that_of_the_published_shape(alias: str) -> None:
    class_name, fields = PUBLISHED[alias]
    config = getattr(transformers, class_name)(**fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    facts = READY_MODELS[alias].facts
    text = config.get_text_config()
    num_kv_heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    assert facts.num_weights == sum(parameter.numel() for parameter in model.parameters())
    assert facts.num_kv_values == text.num_hidden_layers * num_kv_heads * head_dim * 2
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert facts.num_shared == (text.vocab_size * text.hidden_size if is_tied else 0)


@pytest.mark.parametrize("name", MORE_FAMILIES)
def test_weights_of_other_families_are_those_in_the_file(name: str, tmp_path: Path) -> None:
    model = make_model(make_config(name), 0)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 0 <= read_facts(save(model, tmp_path)).num_weights - num_parameters <= NUM_SMALL_BUFFERS
