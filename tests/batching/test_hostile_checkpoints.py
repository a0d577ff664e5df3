"""Whatever a checkpoint's files hold, loading it ends in a model or in one sentence, soon and in little memory.

S38: no code of the checkpoint runs. S39: headers of safetensors. S41: fields of config.json.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batching import model_loader
from batching.attention.paged_layer import ATTENTION_NAME
from batching.model_loader import load_model, no_progress
from contracts.errors import ModelNotUsable
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import TinyModels

EVIL = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
NOT_SIZES = [-1, 0, 1.5, "x", True, [], {}, 10**9, 10**30, float("nan"), None]
FIELDS = [
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings", "rope_parameters", "rms_norm_eps", "hidden_act"),
    *("layer_types", "dtype", "eos_token_id", "pad_token_id", "tie_word_embeddings", "model_type", "architectures"),
    *("attention_bias", "quantization_config", "sliding_window", "initializer_range"),
]
LARGE = {"vocab_size": 2**24, "hidden_size": 2**17, "intermediate_size": 2**20, "num_hidden_layers": 1024}


@pytest.fixture(scope="module")
def good(tiny_models: TinyModels) -> Path:
    return tiny_models.reference("llama").path


@pytest.fixture
def checkpoint(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "model")
    return tmp_path / "model"


def load_or_refuse(checkpoint: Path) -> str | None:
    """The sentence of the refusal, None where the model loads; any other exception is a failure."""
    try:
        load_model(engine_settings(checkpoint, max_model_len=None), no_progress)
    except ModelNotUsable as error:
        return error.message
    return None


def change_config(checkpoint: Path, fields: dict[str, Any]) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# ---- S39


def split_weights(checkpoint: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of the one weights file."""
    content = (checkpoint / "model.safetensors").read_bytes()
    (header_len,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + header_len]), content[8 + header_len :]


def write_weights(checkpoint: Path, header: object, data: bytes, header_len: int | None = None) -> None:
    encoded = json.dumps(header).encode()
    length = struct.pack("<Q", len(encoded) if header_len is None else header_len)
    (checkpoint / "model.safetensors").write_bytes(length + encoded + data)


NAME = "model.norm.weight"


@pytest.mark.parametrize("header_len", [0, 1, 7, 2**16, 100_000_001, 2**32, 2**63 - 1, 2**64 - 1])
def test_header_of_another_length_is_refused(checkpoint: Path, header_len: int) -> None:
    write_weights(checkpoint, *split_weights(checkpoint), header_len=header_len)
    assert "cannot be loaded" in str(load_or_refuse(checkpoint))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [65]},
        {"shape": [2**62, 4]},
        {"shape": [-64]},
        {"shape": "x"},
        {"shape": [64, 0]},
        {"dtype": "F16"},
        {"dtype": "Q9"},
        {"data_offsets": [0, 256]},
        {"data_offsets": [256, 0]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [-1, 255]},
        {"data_offsets": [0]},
        {"data_offsets": None},
    ],
    ids=str,
)
def test_tensor_that_is_not_where_and_what_its_header_says_is_refused(
    checkpoint: Path, change: dict[str, object]
) -> None:
    header, data = split_weights(checkpoint)
    header[NAME] = header[NAME] | change
    write_weights(checkpoint, header, data)
    assert "cannot be loaded" in str(load_or_refuse(checkpoint))


@pytest.mark.parametrize("hole", [1, 255, 4096])
def test_data_that_is_longer_or_shorter_than_the_header_says_is_refused(checkpoint: Path, hole: int) -> None:
    header, data = split_weights(checkpoint)
    write_weights(checkpoint, header, data[:-hole])
    assert "cannot be loaded" in str(load_or_refuse(checkpoint))
    write_weights(checkpoint, header, data + b"\x00" * hole)
    assert "cannot be loaded" in str(load_or_refuse(checkpoint))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_flipped_bytes_of_a_header_are_refused_or_harmless(good: Path, tmp_path: Path, seed: int) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(good, checkpoint, dirs_exist_ok=True)
    draw = random.Random(seed)
    content = bytearray((good / "model.safetensors").read_bytes())
    for _ in range(draw.choice([1, 1, 2, 8])):
        content[draw.randrange(8 + struct.unpack("<Q", content[:8])[0] % 2000)] = draw.randrange(256)
    (checkpoint / "model.safetensors").write_bytes(content)
    message = load_or_refuse(checkpoint)
    assert message is None or "cannot be loaded" in message or "lacks" in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "consolidated.00.pth"])
def test_weights_that_can_run_code_are_refused_by_name_of_the_right_format(checkpoint: Path, name: str) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    assert "holds no *.safetensors: other weight formats can run code" in str(load_or_refuse(checkpoint))


# ---- S41


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(NOT_SIZES), min_size=1, max_size=3))
def test_any_config_loads_or_is_refused_in_a_sentence(good: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(good, checkpoint, dirs_exist_ok=True)
    change_config(checkpoint, fields)
    message = load_or_refuse(checkpoint)
    assert message is None or str(checkpoint) in message or "config.json" in message or "model type" in message


@pytest.mark.parametrize(
    "names",
    [
        ("vocab_size",),
        pytest.param(("num_hidden_layers",), marks=pytest.mark.slow),
        ("vocab_size", "hidden_size"),
        pytest.param(tuple(LARGE), marks=pytest.mark.slow),
    ],
    ids="+".join,
)
def test_config_of_a_far_larger_model_is_refused_before_its_weights_are_made(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    change_config(checkpoint, {name: LARGE[name] for name in names})
    monkeypatch.setattr(model_loader, "_read_weights", None)
    tracemalloc.start()
    message = str(load_or_refuse(checkpoint))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "do not belong together" in message
    assert peak_bytes < 200 * 2**20


# ---- S38


@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation_internal": "evil/kernel"},
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "evil/kernel"},
        {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "trust_remote_code": True},
        {"auto_map": {"AutoConfig": "somebody/else--evil.Config"}},
        {"architectures": ["evil.Model"]},
        {"use_kernels": True, "kernel_config": {"RMSNorm": "evil/kernel:RMSNorm"}},
        {"custom_pipelines": {"text-generation": {"impl": "evil.Pipe", "pt": ["AutoModel"]}}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_config_that_names_code_runs_none(checkpoint: Path, fields: dict[str, Any]) -> None:
    for name in ("evil.py", "__init__.py", "modeling_evil.py", "configuration_evil.py", "conftest.py"):
        (checkpoint / name).write_text(EVIL)
    change_config(checkpoint, fields)
    loaded = load_model(engine_settings(checkpoint), no_progress)
    assert type(loaded.model).__module__ == "transformers.models.llama.modeling_llama"
    assert not (checkpoint / "ran").exists()
    files = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    assert not [file for file in files if str(checkpoint) in file or "transformers_modules" in file]
    attention: Any = loaded.layers[0].module
    assert attention.config._attn_implementation == ATTENTION_NAME


def test_no_request_and_no_setting_can_ask_for_trust(good: Path) -> None:
    fields = set(type(engine_settings(good)).__struct_fields__)
    assert not [name for name in fields if "trust" in name or "code" in name]
