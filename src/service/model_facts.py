"""What a checkpoint's files say of its size, read without torch and without its weights.

Reads config.json and the headers of the safetensors files, nothing else. Knows no settings and no memory budget.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import ModelNotUsable
from contracts.model_catalog import ModelProfile
from service.ready_models import ModelFacts, find_facts
from service.tokenizer import read_json_object

MAX_HEADER_BYTES = 100 * 1024 * 1024
"""The limit of the format itself."""
INDEX_NAME = "model.safetensors.index.json"
DEFAULT_WINDOW = 2048
"""The engine's own, for a config that gives none."""
_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_OTHER_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
_HEADS = ("lm_head.weight", "embed_out.weight")
_HALF = ("bfloat16", "float16")
_DYNAMIC_ROPE = ("dynamic", "longrope")
_UNGROUPED = ("gpt2", "gpt_neox", "opt")
"""Model types whose heads never share keys, whatever else their config holds."""


class _Tensor(msgspec.Struct, frozen=True):
    """One entry of a header."""

    dtype: str
    shape: list[int]


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def facts_of(profile: ModelProfile) -> ModelFacts | None:
    """From the files where the model is on this machine, else those of a ready entry; None where nothing is known."""
    directory = find_directory(profile.model, is_embedded=profile.is_embedded)
    return find_facts(profile.model) if directory is None else read_facts(directory)


def find_directory(model: str, *, is_embedded: bool = False) -> Path | None:
    """Where the files of a model are; None for a hub name whose weights were never fetched."""
    if is_embedded:
        spec = find_spec("batching.pico")
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0]) / "weights" if places else None
    directory = Path(model).expanduser()
    if model and directory.is_dir():
        return directory
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    snapshot = Path(config).parent
    return snapshot if has_weights(snapshot) else None


def has_weights(directory: Path) -> bool:
    """Every file of the weights is there."""
    try:
        return all((directory / name).is_file() for name in weight_files(directory))
    except ModelNotUsable:
        return False


def read_facts(directory: Path) -> ModelFacts:
    """The size of the model in a directory; raises ModelNotUsable with the file that cannot be read."""
    config = read_json_object(directory / "config.json")
    nested = config.get("text_config")
    text_config: dict[str, Any] = nested if isinstance(nested, dict) else config
    tensors = {
        name: tensor for file in weight_files(directory) for name, tensor in _read_header(directory / file).items()
    }
    is_tied = bool(config.get("tie_word_embeddings", text_config.get("tie_word_embeddings", False)))
    heads = {name for name in tensors if name.endswith(_HEADS)}
    counted = [tensor for name, tensor in tensors.items() if not _is_unused(name, tensor, is_tied=is_tied)]
    return ModelFacts(
        num_weights=sum(math.prod(tensor.shape) for tensor in counted if tensor.dtype in _FLOAT_BYTES),
        other_bytes=sum(
            math.prod(tensor.shape) * _OTHER_BYTES.get(tensor.dtype, 1)
            for tensor in counted
            if tensor.dtype not in _FLOAT_BYTES
        ),
        num_shared=_product(text_config, "vocab_size", ("hidden_size", "n_embd")) if is_tied or not heads else 0,
        is_half=(config.get("dtype") or config.get("torch_dtype")) in _HALF,
        num_kv_values=_num_kv_values(text_config),
        window=_window(text_config),
    )


def weight_files(directory: Path) -> list[str]:
    """Names of the files that transformers would read; raises ModelNotUsable where there are none."""
    if (directory / "model.safetensors").is_file():
        return ["model.safetensors"]
    index = directory / INDEX_NAME
    if index.is_file():
        try:
            return sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
        except (OSError, msgspec.DecodeError) as error:
            raise ModelNotUsable(f"{index} cannot be read: {error}. Download the model again.") from error
    names = sorted(path.name for path in directory.glob("*.safetensors"))
    if not names:
        raise ModelNotUsable(f"{directory} holds no *.safetensors: other weight formats can run code and are refused.")
    return names


def _read_header(path: Path) -> dict[str, _Tensor]:
    """Names, types and shapes of the tensors in a file; raises ModelNotUsable where it is no whole safetensors file."""
    try:
        with path.open("rb") as file:
            header_len = int.from_bytes(file.read(8), "little")
            if header_len > min(MAX_HEADER_BYTES, path.stat().st_size):
                raise ValueError("its header is longer than the file or than the format allows")
            header = msgspec.json.decode(file.read(header_len), type=dict[str, msgspec.Raw])
        return {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in header.items() if name != "__metadata__"}
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ModelNotUsable(f"{path} is no whole safetensors file: {error}. Download the model again.") from error


def _is_unused(name: str, tensor: _Tensor, *, is_tied: bool) -> bool:
    """Stored, but no parameter: a second copy of a tied head, or the causal mask in old GPT-2 checkpoints."""
    is_mask = len(tensor.shape) == 4 and tensor.shape[:2] == [1, 1] and tensor.shape[2] == tensor.shape[3] > 1
    return is_mask or (is_tied and name.endswith(_HEADS))


def _num_kv_values(config: dict[str, Any]) -> int | None:
    """Numbers that one token adds to the cache, all layers together; None where the config does not say."""
    if config.get("kv_lora_rank") is not None:
        return None
    num_layers = _first(config, ("num_hidden_layers", "n_layer"))
    num_heads = _first(config, ("num_attention_heads", "n_head"))
    hidden = _first(config, ("hidden_size", "n_embd"))
    if num_layers is None or num_heads is None or hidden is None:
        return None
    grouped = None if config.get("model_type") in _UNGROUPED else _first(config, ("num_key_value_heads",))
    num_kv_heads = 1 if config.get("multi_query") is True else grouped or num_heads
    head_dim = _first(config, ("head_dim",)) or hidden // num_heads
    return num_layers * num_kv_heads * head_dim * 2


def _window(config: dict[str, Any]) -> int:
    """The longest context that the engine would serve; see batching.model_gate."""
    own = _first(config, ("max_position_embeddings", "n_positions")) or DEFAULT_WINDOW
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        return own
    limits = [
        _first(kind, ("original_max_position_embeddings",))
        or _first(config, ("original_max_position_embeddings",))
        or own
        for kind in (rope, *(value for value in rope.values() if isinstance(value, dict)))
        if kind.get("rope_type", kind.get("type")) in _DYNAMIC_ROPE
    ]
    return min([own, *limits])


def _product(config: dict[str, Any], name: str, others: tuple[str, ...]) -> int:
    return (_first(config, (name,)) or 0) * (_first(config, others) or 0)


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of the keys that holds a positive whole number."""
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)
