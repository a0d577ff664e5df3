"""Whether a checkpoint on this machine is whole: headers, sizes, shapes, tokenizer, chat template, each file by name.

Reads headers and small files; the weights themselves are read by whoever loads them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from contracts.checkup import Finding
from contracts.errors import InvalidRequest, ModelNotUsable
from contracts.model_catalog import ModelProfile
from contracts.sizes import format_bytes
from service.chat_template import ChatTemplate
from service.model_facts import MAX_HEADER_BYTES, find_directory, weight_files
from service.terminal.examination import found
from service.tokenizer import TextTokenizer, read_json_object

ITEM_BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16},
    **{"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
}
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_AGAIN = "Download the model again."
SAMPLE_TEXT = "Hello, wörld! 1 + 1 = 2."


class StoredTensor(msgspec.Struct, frozen=True):
    """One entry of a safetensors header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def check_files(profile: ModelProfile) -> Finding:
    """Every file of the weights is whole, and the shapes are those that config.json describes."""
    directory = find_directory(profile.model, is_embedded=profile.is_embedded)
    if directory is None:
        return found("skipped", f"{profile.model} is not on this machine yet: it is fetched when it is first served.")
    config = read_json_object(directory / "config.json")
    tensors: dict[str, StoredTensor] = {}
    num_bytes = 0
    names = weight_files(directory)
    for name in names:
        tensors |= read_whole_header(directory / name)
        num_bytes += (directory / name).stat().st_size
    check_shapes(directory / "config.json", config, tensors)
    return found(
        "ok",
        f"{len(names)} file{'s' if len(names) > 1 else ''}, {len(tensors)} tensors, {format_bytes(num_bytes)}: whole, "
        "with the shapes of config.json.",
        num_files=len(names),
        num_tensors=len(tensors),
        num_bytes=num_bytes,
    )


def read_whole_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file that holds all their bytes and no others; raises ModelNotUsable with its name."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_len = int.from_bytes(file.read(8), "little")
            if not 0 < header_len <= min(MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"its header would be {header_len} bytes, the file has {size}")
            raw = msgspec.json.decode(file.read(header_len), type=dict[str, msgspec.Raw])
        tensors = {
            name: msgspec.json.decode(one, type=StoredTensor) for name, one in raw.items() if name != "__metadata__"
        }
    except FileNotFoundError as error:
        raise ModelNotUsable(f"{path} is missing. {_AGAIN}") from error
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ModelNotUsable(f"{path} is no safetensors file: {error}. {_AGAIN}") from error
    _check_offsets(path, tensors, size - 8 - header_len)
    return tensors


def _check_offsets(path: Path, tensors: dict[str, StoredTensor], data_bytes: int) -> None:
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, end = tensor.data_offsets
        bits = ITEM_BITS.get(tensor.dtype)
        if begin != at or end < begin or (bits is not None and (end - begin) * 8 != math.prod(tensor.shape) * bits):
            raise ModelNotUsable(f"{path} is corrupt: the bytes of {name} are not where they should be. {_AGAIN}")
        at = end
    if at > data_bytes:
        raise ModelNotUsable(
            f"{path} is cut off: {at:,} bytes of tensors should follow its header, there are {data_bytes:,}. {_AGAIN}"
        )
    if at < data_bytes:
        raise ModelNotUsable(f"{path} is corrupt: {data_bytes - at:,} bytes follow its last tensor. {_AGAIN}")


def check_shapes(config_path: Path, config: dict[str, Any], tensors: dict[str, StoredTensor]) -> None:
    """Raises ModelNotUsable where embedding or layers are not those of the config; families vary in all else."""
    nested = config.get("text_config")
    text: dict[str, Any] = nested if isinstance(nested, dict) else config
    vocab, hidden = text.get("vocab_size"), text.get("hidden_size", text.get("n_embd"))
    for name, tensor in tensors.items():
        is_known = isinstance(vocab, int) and isinstance(hidden, int) and len(tensor.shape) == 2
        if name.endswith(_EMBEDDINGS) and is_known and "word_embed_proj_dim" not in text and tensor.shape[0] != vocab:
            raise ModelNotUsable(
                f"{config_path} says that there are {vocab} token ids, but {name} has {tensor.shape[0]} rows. {_AGAIN}"
            )
        if name.endswith(_EMBEDDINGS) and is_known and "word_embed_proj_dim" not in text and tensor.shape[1] != hidden:
            raise ModelNotUsable(
                f"{config_path} says that a token has {hidden} numbers, but {name} has {tensor.shape[1]}. {_AGAIN}"
            )
    wanted = text.get("num_hidden_layers", text.get("n_layer"))
    layers = {int(part) for name in tensors for part in name.split(".")[:5] if part.isdigit()}
    if isinstance(wanted, int) and layers and len(layers) < wanted:
        raise ModelNotUsable(f"{config_path} says {wanted} layers, the weights hold {len(layers)}. {_AGAIN}")


def check_tokenizer(profile: ModelProfile) -> Finding:
    """tokenizer.json can be read, and a text comes back as it went in."""
    directory = find_directory(profile.model, is_embedded=profile.is_embedded)
    if directory is None:
        return found("skipped", "The model is not on this machine yet.")
    tokenizer = TextTokenizer.load(directory)
    ids = tokenizer.encode(SAMPLE_TEXT, add_special_tokens=False)
    config = read_json_object(directory / "config.json")
    nested = config.get("text_config")
    rows = (nested if isinstance(nested, dict) else config).get("vocab_size")
    if isinstance(rows, int) and max(ids, default=0) >= rows:
        raise ModelNotUsable(
            f"{directory / 'tokenizer.json'} gives the token id {max(ids)}, but the model has {rows}: they do not "
            f"belong together. {_AGAIN}"
        )
    is_same = tokenizer.decode(ids).strip() == SAMPLE_TEXT
    told = f"{tokenizer.vocab_size:,} tokens; a text of {len(SAMPLE_TEXT)} characters became {len(ids)} and came back"
    if not is_same:
        return found("warning", f"{told} changed: this tokenizer folds letters or drops what it does not know.")
    return found("ok", f"{told} the same.", vocab_size=tokenizer.vocab_size, num_tokens=len(ids))


def check_template(profile: ModelProfile) -> Finding:
    """A chat can be rendered, as the model's profile wants it."""
    directory = find_directory(profile.model, is_embedded=profile.is_embedded)
    if directory is None:
        return found("skipped", "The model is not on this machine yet.")
    if profile.is_chat is False:
        return found("skipped", "It is declared a base model: /v1/completions alone.")
    tokenizer = TextTokenizer.load(directory)
    try:
        template = ChatTemplate.for_model(directory, tokenizer, profile.template)
        text = None if template is None else template.render([{"role": "user", "content": SAMPLE_TEXT}])
    except InvalidRequest as error:
        raise ModelNotUsable(
            f"The chat template of {profile.alias} cannot render one message of a user: {error.message} Declare "
            'another in --models-file, such as template = "default".'
        ) from error
    if text is None:
        return found(
            "warning",
            f"{directory} holds no chat template: /v1/chat/completions will refuse the model.",
            'Declare one in --models-file (template = "chatml", for example), or use /v1/completions.',
        )
    if SAMPLE_TEXT not in text:
        return found("warning", "The chat template leaves out what the user says.", "Look at chat_template.jinja.")
    ids = tokenizer.encode(text, add_special_tokens=False)
    kind = profile.template or "its own"
    return found("ok", f"Template {kind}: one message becomes a prompt of {len(ids)} tokens.", num_tokens=len(ids))
