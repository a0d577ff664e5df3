"""From a checkpoint on disk to a model that runs packed steps: resolve, gate, load, attach the paged attention."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from batching import pico
from batching.attention import paged_layer
from batching.attention.reference import AttentionVariant
from batching.generation_config import eos_token_ids, read_generation_config
from batching.kv_cache import LayerShape, free_memory_bytes
from batching.kv_dtype import check_kv_dtype
from batching.model_gate import ProbedLayer, check_config, probe_layers, usable_model_len
from batching.weight_reading import read_model
from contracts.errors import ModelNotUsable, NotEnoughMemory
from contracts.sampling import SamplingDefaults
from contracts.settings import EMBEDDED_MODEL, EngineSettings
from contracts.sizes import format_bytes

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What transformers raises for a config or weights that make no sense: it checks little before it computes."""

LOADING_WEIGHTS = "loading weights"

MAX_PACKING = 16
"""Parameters that one stored number can stand for: 4-bit weights in int32 are 8, and some are shared."""

ProgressCallback = Callable[[str, float | None], None]
"""Called with a stage and, where known, the fraction done (0..1)."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint ready to run; the modules of `layers` still need their PagedLayer."""

    name: str
    path: Path
    model: torch.nn.Module
    config: Any
    layers: list[ProbedLayer]
    device: torch.device
    dtype: torch.dtype
    max_model_len: int
    eos_token_ids: list[int]
    sampling_defaults: SamplingDefaults
    vocab_size: int
    num_parameters: int
    weight_bytes: int
    load_s: float

    @property
    def layer_shapes(self) -> list[LayerShape]:
        return [layer.shape for layer in self.layers]

    @property
    def layer_variants(self) -> list[AttentionVariant]:
        return [layer.variant for layer in self.layers]


def no_progress(stage: str, fraction: float | None) -> None:
    """A ProgressCallback for when nobody watches."""


def default_name(model: str) -> str:
    """A hub name as it is, a directory by its last part."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def resolve_device(wanted: str) -> torch.device:
    """auto takes CUDA where there is one; asking for a missing CUDA is an error."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelNotUsable("--device cuda was asked for, but torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_path(model: str, *, is_offline: bool) -> Path:
    """Local directory of the embedded model, of a path, or of a hub name (downloaded unless offline)."""
    if model == EMBEDDED_MODEL:
        return pico.WEIGHTS_DIR
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    patterns = ["*.json", "*.safetensors", "*.jinja"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=is_offline))
    except HFValidationError as error:
        raise ModelNotUsable(f"{model!r} is neither a directory nor a hub name such as org/name") from error
    except LocalEntryNotFoundError as error:
        reason = "offline mode is on" if is_offline else "the hub cannot be reached"
        raise ModelNotUsable(f"{model!r} is not on this machine and {reason}; name a local directory") from error
    except GatedRepoError as error:
        raise ModelNotUsable(
            f"{model!r} is gated: accept its terms at https://huggingface.co/{model}, and set HF_TOKEN to a token of "
            "that account; or name a local directory"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotUsable(
            f"the hub has no model {model!r}, or it is private: check the name, or set HF_TOKEN to a token that may "
            "read it"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelNotUsable(f"{model!r} cannot be fetched from the hub: {error}") from error


def read_config(path: Path) -> Any:
    """The text model's config; remote code is never run."""
    if not (path / "config.json").is_file():
        raise ModelNotUsable(f"{path} holds no config.json: it is not a transformers checkpoint")
    if not any(path.glob("*.safetensors")):
        raise ModelNotUsable(f"{path} holds no *.safetensors: other weight formats can run code and are refused")
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        if _names_code(path):
            raise ModelNotUsable(f"{path} needs code of its own, which is never run; transformers lacks it") from error
        raise ModelNotUsable(f"{path / 'config.json'} cannot be read: {error}") from error


def _names_code(path: Path) -> bool:
    try:
        return "auto_map" in msgspec.json.decode((path / "config.json").read_bytes(), type=dict)
    except msgspec.MsgspecError:
        return False


def resolve_dtype(wanted: str, config: Any) -> torch.dtype:
    """auto keeps bfloat16 checkpoints in bfloat16 and computes everything else in float32."""
    if wanted == "auto":
        stored = getattr(config, "dtype", None)
        return torch.bfloat16 if stored in (torch.bfloat16, torch.float16) else torch.float32
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def load_model(settings: EngineSettings, on_progress: ProgressCallback) -> LoadedModel:
    """Load a checkpoint for serving; raises ModelNotUsable with the reason and the remedy."""
    started_s = time.monotonic()
    on_progress("finding the model", None)
    path = resolve_path(settings.model, is_offline=settings.offline)
    config = read_config(path)
    check_config(config)
    generation = read_generation_config(path)
    device, dtype = resolve_device(settings.device), resolve_dtype(settings.dtype, config)
    check_kv_dtype(settings.kv_dtype, device)
    on_progress(LOADING_WEIGHTS, None)
    _check_weights_fit(path, _check_num_parameters(path, config), device, dtype)
    model = _read_weights(path, config, device, dtype, on_progress)
    text_config = config.get_text_config()
    on_progress("checking the layers", None)
    layers = probe_layers(model, text_config)
    parameters = list(model.parameters())
    return LoadedModel(
        name=settings.served_model_name or default_name(settings.model),
        path=path,
        model=model,
        config=config,
        layers=layers,
        device=device,
        dtype=dtype,
        max_model_len=usable_model_len(text_config, settings.max_model_len),
        eos_token_ids=eos_token_ids(generation, getattr(text_config, "eos_token_id", None)),
        sampling_defaults=generation.sampling_defaults,
        vocab_size=int(text_config.vocab_size),
        num_parameters=sum(parameter.numel() for parameter in parameters),
        weight_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        load_s=time.monotonic() - started_s,
    )


def _check_num_parameters(path: Path, config: Any) -> int:
    """The number of weights; a config that describes far more than the files hold is refused: transformers would
    allocate it all to say so."""
    try:
        with torch.device("meta"):
            # Named here, for a name in the config could be that of a kernel on the hub.
            described = AutoModelForCausalLM.from_config(config, attn_implementation="eager", trust_remote_code=False)
        num_stored = sum(_num_elements(file) for file in sorted(path.glob("*.safetensors")))
    except UNREADABLE as error:
        raise ModelNotUsable(f"the weights in {path} cannot be loaded: {error or type(error).__name__}") from error
    num_described = sum(parameter.numel() for parameter in described.parameters())
    if num_described > MAX_PACKING * num_stored:
        raise ModelNotUsable(
            f"{path / 'config.json'} describes a model of {num_described} parameters, but the weights beside it are "
            f"{num_stored} numbers: they do not belong together; download the model again"
        )
    return min(int(num_described), num_stored)


def _check_weights_fit(path: Path, num_weights: int, device: torch.device, dtype: torch.dtype) -> None:
    """Before they are read: a machine that runs out of memory ends the process without a word."""
    needed, free = num_weights * dtype.itemsize, free_memory_bytes(device)
    if needed > free:
        name = str(dtype).removeprefix("torch.")
        halved = "; --dtype bfloat16 halves it" if dtype is torch.float32 else ""
        raise NotEnoughMemory(
            f"the weights in {path} take {format_bytes(needed)} in {name}, but {format_bytes(free)} of memory are free "
            f"on {device.type}: free some, or serve a smaller model{halved}"
        )


def _num_elements(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 (no iterator)


def _read_weights(
    path: Path, config: Any, device: torch.device, dtype: torch.dtype, on_progress: ProgressCallback
) -> torch.nn.Module:
    paged_layer.register()
    transformers_logging.disable_progress_bar()  # progress goes through on_progress
    try:
        model, report = read_model(
            path,
            device,
            lambda fraction: on_progress(LOADING_WEIGHTS, fraction),
            config=config,
            dtype=dtype,
            attn_implementation=paged_layer.ATTENTION_NAME,
        )
    except UNREADABLE as error:
        if isinstance(error, KeyError) and error.args == (paged_layer.ATTENTION_NAME,):
            raise ModelNotUsable(
                f"model type {config.model_type!r} does not use transformers' attention interface in its layers, so a "
                "paged KV cache cannot hold its context"
            ) from error
        raise ModelNotUsable(f"the weights in {path} cannot be loaded: {error or type(error).__name__}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelNotUsable(
            f"{path} lacks {len(missing)} weights of the model that its config.json describes, such as {missing[0]}"
        )
    module: torch.nn.Module = model.eval().requires_grad_(False)
    return module
