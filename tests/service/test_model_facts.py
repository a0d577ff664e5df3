"""The size of a checkpoint comes from its headers alone; what is broken is named, what is missing is unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ModelNotUsable
from contracts.model_catalog import ModelProfile
from service.model_facts import facts_of, find_directory, has_weights, read_facts
from service.ready_models import READY_MODELS

CONFIG = {
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "dtype": "bfloat16",
}
TENSORS = {"embed.weight": ("BF16", [10, 8]), "lm_head.weight": ("BF16", [10, 8])}


def write_file(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A safetensors file without its data: only the header may be read."""
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def write_model(directory: Path, tensors: dict[str, tuple[str, list[int]]] | None = None, **config: Any) -> Path:
    (directory / "config.json").write_text(json.dumps({**CONFIG, **config}))
    write_file(directory / "model.safetensors", TENSORS if tensors is None else tensors)
    return directory


def test_header_says_it_all(tmp_path: Path) -> None:
    facts = read_facts(write_model(tmp_path))
    assert (facts.num_weights, facts.other_bytes, facts.num_shared) == (160, 0, 0)
    assert (facts.num_kv_values, facts.window, facts.is_half) == (3 * 2 * 2 * 2, 64, True)


def test_numbers_that_are_no_floats_keep_their_type(tmp_path: Path) -> None:
    tensors = {"packed": ("I32", [4, 2]), "bytes": ("U8", [3]), "new": ("F8_E4M3", [5]), "scale": ("F64", [7])}
    facts = read_facts(write_model(tmp_path, tensors))
    assert (facts.num_weights, facts.other_bytes) == (7, 4 * 8 + 3 + 5)


def test_masks_in_old_checkpoints_and_second_copies_are_not_counted(tmp_path: Path) -> None:
    tensors = {**TENSORS, "h.0.attn.bias": ("F32", [1, 1, 64, 64])}
    facts = read_facts(write_model(tmp_path, tensors, tie_word_embeddings=True))
    assert (facts.num_weights, facts.num_shared) == (80, 80)


def test_text_model_inside_a_config_is_the_one(tmp_path: Path) -> None:
    text: dict[str, Any] = {
        "text_config": {**CONFIG, "num_hidden_layers": 1, "head_dim": 16},
        "dtype": None,
        "torch_dtype": "float32",
    }
    facts = read_facts(write_model(tmp_path, **text))
    assert (facts.num_kv_values, facts.is_half) == (1 * 2 * 16 * 2, False)


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": None}, 2048),
        ({"max_position_embeddings": None, "n_positions": 99}, 99),
        ({"rope_scaling": {"type": "dynamic"}, "original_max_position_embeddings": 32}, 32),
        ({"rope_parameters": {"full": {"rope_type": "longrope", "original_max_position_embeddings": 16}}}, 16),
        ({"rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 16}}, 64),
        ({"rope_scaling": "nonsense"}, 64),
    ],
)
def test_window_is_what_the_engine_would_serve(tmp_path: Path, config: dict[str, Any], window: int) -> None:
    assert read_facts(write_model(tmp_path, **config)).window == window


@pytest.mark.parametrize(
    "config",
    [{"num_hidden_layers": None}, {"num_hidden_layers": "3"}, {"num_attention_heads": -4}, {"kv_lora_rank": 512}],
)
def test_cache_of_an_unknown_shape_is_unknown(tmp_path: Path, config: dict[str, Any]) -> None:
    assert read_facts(write_model(tmp_path, **config)).num_kv_values is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        (10**9).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little"),
        (5).to_bytes(8, "little") + b"{nope",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": 12}',
        (34).to_bytes(8, "little") + b'{"a": {"dtype": 5, "shape": "abc"}}',
    ],
)
def test_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    write_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelNotUsable, match=r"model\.safetensors is no whole safetensors file: .*Download"):
        read_facts(tmp_path)


def test_directory_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotUsable, match=r"holds no \*\.safetensors"):
        read_facts(tmp_path)
    assert not has_weights(tmp_path)


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": {"a": 5}}'])
def test_index_that_is_none_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelNotUsable, match=r"index\.json cannot be read"):
        read_facts(tmp_path)


def test_model_is_not_here_until_every_shard_is(tmp_path: Path) -> None:
    shards = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    write_file(tmp_path / "one.safetensors", {"a": ("F32", [2])})
    assert not has_weights(tmp_path)
    with pytest.raises(ModelNotUsable, match=r"two\.safetensors is no whole safetensors file"):
        read_facts(tmp_path)
    write_file(tmp_path / "two.safetensors", {"b": ("F32", [3])})
    assert has_weights(tmp_path)
    assert read_facts(tmp_path).num_weights == 5


def cached(directory: Path, name: str) -> Path:
    """The snapshot of a model in a hub cache below `directory`, with its config alone."""
    repository = directory / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    return snapshot


def test_hub_name_is_here_once_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = cached(tmp_path, "org/model")
    assert find_directory("org/model") is None
    assert facts_of(ModelProfile(alias="a", model="org/model")) is None
    write_model(snapshot)
    assert find_directory("org/model") == snapshot
    assert facts_of(ModelProfile(alias="a", model="org/model")) == read_facts(snapshot)


def test_ready_entry_is_known_before_it_is_here() -> None:
    ready = READY_MODELS["llama-3.2-1b"]
    assert facts_of(ready.profile) == ready.facts


@pytest.mark.parametrize("model", ["", "a/b/c", "é"])
def test_what_is_no_hub_name_is_nowhere(model: str) -> None:
    assert find_directory(model) is None


def test_embedded_model_is_in_the_package() -> None:
    directory = find_directory("quire-pico", is_embedded=True)
    assert directory is not None
    assert has_weights(directory)
