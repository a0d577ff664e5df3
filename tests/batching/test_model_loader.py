"""Missing, broken and hostile checkpoints end in one sentence, quickly, and never run code of theirs."""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from batching import model_loader
from batching.model_loader import default_name, load_model, no_progress, resolve_device
from contracts.errors import ModelNotUsable, NotEnoughMemory
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import TinyModels

REMOTE_CODE = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nraise RuntimeError('remote code ran')\n"


@pytest.fixture
def checkpoint(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """A good Llama checkpoint of one's own to break."""
    path = tmp_path / "model"
    shutil.copytree(tiny_models.reference("llama").path, path)
    return path


def refusal_of(model: Path | str, **settings: Any) -> str:
    with pytest.raises(ModelNotUsable) as caught:
        load_model(engine_settings(Path(model), **settings), no_progress)
    return caught.value.message


def change_config(checkpoint: Path, **fields: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loader, "free_memory_bytes", lambda _: 1024)
    with pytest.raises(NotEnoughMemory, match=r"take .* in float32, but 1.0 KiB .* --dtype bfloat16 halves it"):
        load_model(engine_settings(checkpoint), no_progress)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.GatedRepoError, "is gated: accept its terms at https://huggingface.co/org/name, and set HF_TOKEN"),
        (errors.RepositoryNotFoundError, "the hub has no model 'org/name', or it is private"),
        (errors.HfHubHTTPError, "cannot be fetched from the hub: told so"),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_remedy(
    error: type[errors.HfHubHTTPError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("told so", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))  # type: ignore[arg-type]  # another copy of httpx

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert words in refusal_of("org/name", offline=False)


def test_good_checkpoint_loads(checkpoint: Path) -> None:
    stages: list[str] = []
    loaded = load_model(engine_settings(checkpoint), lambda stage, _: stages.append(stage))
    assert (loaded.name, loaded.vocab_size, len(loaded.layers), loaded.dtype) == ("model", 128, 2, torch.float32)
    assert loaded.weight_bytes == 4 * loaded.num_parameters
    assert stages == ["finding the model", "loading weights", "checking the layers"]


def test_end_of_sequence_ids_of_both_files_are_taken(checkpoint: Path) -> None:
    change_config(checkpoint, eos_token_id=5)
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 5, 7]}))
    assert load_model(engine_settings(checkpoint), no_progress).eos_token_ids == [5, 7, 9]


def test_directory_without_config_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    assert "holds no config.json" in refusal_of(checkpoint)


def test_directory_without_weights_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "holds no *.safetensors" in refusal_of(checkpoint)


def test_pickled_weights_are_refused(checkpoint: Path) -> None:
    """S39"""
    (checkpoint / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.zeros(2, 2)}, checkpoint / "pytorch_model.bin")
    assert "other weight formats can run code" in refusal_of(checkpoint)


def test_pickled_weights_beside_foreign_safetensors_are_refused(checkpoint: Path) -> None:
    """S39"""
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter.safetensors")
    torch.save({"lm_head.weight": torch.zeros(2, 2)}, checkpoint / "pytorch_model.bin")
    assert "cannot be loaded" in refusal_of(checkpoint)


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "neither a directory nor a hub name" in refusal_of(tmp_path / "no" / "such" / "model")


def test_hub_name_is_not_looked_up_when_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "offline mode is on" in refusal_of("nobody/has-such-a-model")


@pytest.fixture
def hostile(checkpoint: Path) -> Path:
    """A checkpoint that brings code and asks for it to be trusted."""
    (checkpoint / "evil.py").write_text(REMOTE_CODE)
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change_config(checkpoint, auto_map=names, trust_remote_code=True)
    return checkpoint


def test_model_that_needs_code_of_its_own_is_refused(hostile: Path) -> None:
    """S38"""
    change_config(hostile, model_type="of_nobody")
    assert "code of its own, which is never run" in refusal_of(hostile)
    assert not (hostile / "ran").exists()
    assert not [name for name in sys.modules if "evil" in name]


def test_known_family_with_code_beside_it_is_served_by_transformers_own(hostile: Path) -> None:
    """S38"""
    loaded = load_model(engine_settings(hostile), no_progress)
    assert type(loaded.model).__module__ == "transformers.models.llama.modeling_llama"
    assert not (hostile / "ran").exists()
    assert not [name for name in sys.modules if "evil" in name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b"not json!",
        struct.pack("<Q", 64) + b'{"lm_head.weight":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'[:64],
    ],
    ids=["empty", "short", "huge header", "no object", "no json", "cut"],
)
def test_broken_safetensors_are_refused(checkpoint: Path, content: bytes) -> None:
    """S39; more headers: test_hostile_checkpoints."""
    (checkpoint / "model.safetensors").write_bytes(content)
    assert "cannot be loaded" in refusal_of(checkpoint)


def test_cut_weights_are_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in refusal_of(checkpoint)


def test_checkpoint_that_lacks_weights_is_refused(checkpoint: Path) -> None:
    change_config(checkpoint, num_hidden_layers=3)
    assert "lacks" in refusal_of(checkpoint)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"head_dim": 0},
        {"head_dim": -4},
        {"hidden_size": 0},
        {"hidden_size": 10**7},
        {"vocab_size": 256},
        {"vocab_size": -1},
        {"vocab_size": 10**10},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"intermediate_size": 7},
        {"hidden_act": "no such function"},
        {"max_position_embeddings": "long"},
        {"max_position_embeddings": -5},
        {"rope_parameters": {"rope_type": "no such type", "rope_theta": 1.0}},
        {"model_type": "no such type"},
        {"model_type": 7},
        {"layer_types": 7},
    ],
    ids=str,
)
def test_config_that_makes_no_sense_is_refused(checkpoint: Path, fields: dict[str, Any]) -> None:
    """S41; more fields: test_hostile_checkpoints."""
    change_config(checkpoint, **fields)
    assert re.search("config.json|weights", refusal_of(checkpoint, max_model_len=None))


@pytest.mark.parametrize("content", ["", "[]", "7", "{", '{"model_type": "llama"', "\x00"], ids=repr)
def test_config_that_is_no_json_object_is_refused(checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    assert "config.json cannot be read" in refusal_of(checkpoint)


def test_generation_config_that_is_no_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "generation_config.json").write_text("{")
    assert "generation_config.json" in refusal_of(checkpoint)


def test_missing_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelNotUsable, match="use --device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize(("model", "name"), [("org/name", "org/name"), ("/", "")])
def test_hub_name_is_the_name_in_the_api(model: str, name: str) -> None:
    assert default_name(model) == name
