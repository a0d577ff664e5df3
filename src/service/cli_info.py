"""`quire info`: what is installed, what it would run on, and what a model is, without loading its weights."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from contracts.errors import ModelNotUsable
from contracts.settings import EMBEDDED_MODEL, Settings
from contracts.sizes import format_bytes
from contracts.version import VERSION
from service.chat_template import read_template_source
from service.cli_options import resolve_settings, verbose_option
from service.model_catalog import read_catalog
from service.model_check import check_model_exists
from service.model_facts import facts_of, find_directory
from service.model_memory import device_memory, estimate_memory

PACKAGES = ("torch", "transformers", "numba", "litestar", "granian", "msgspec", "tokenizers", "safetensors")
_FACTS = (
    ("Layers", ("num_hidden_layers", "n_layer")),
    ("Hidden size", ("hidden_size", "n_embd")),
    ("Heads", ("num_attention_heads", "n_head")),
    ("KV heads", ("num_key_value_heads",)),
    ("Vocabulary", ("vocab_size",)),
    ("Window", ("max_position_embeddings", "n_positions")),
    ("Stored as", ("dtype", "torch_dtype")),
)


@click.command("info")
@click.argument("model", required=False)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object instead of lines.")
@verbose_option
def info_command(model: str | None, is_json: bool) -> None:
    """Show versions, device, memory, and the facts of MODEL: a local directory, hub name, or the built-in model."""
    settings = resolve_settings({"model": model})
    check_model_exists(settings.engine)
    rows = [*installed_facts(), *machine_facts(settings), *model_facts(settings), *serving_facts(settings)]
    if is_json:
        click.echo(msgspec.json.encode({name.lower().replace(" ", "_"): value for name, value in rows}))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False).print(table)


def installed_facts() -> list[tuple[str, str]]:
    """Versions of Quire, Python and the packages that decide what is computed."""
    return [
        ("Quire", VERSION),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((package, _version(package)) for package in PACKAGES),
    ]


def model_facts(settings: Settings) -> list[tuple[str, str]]:
    """What config.json says, and the size of the weights where they are on this machine."""
    model = settings.engine.model
    config_path = find_config(model, is_offline=settings.engine.offline)
    try:
        config = msgspec.json.decode(config_path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ModelNotUsable(f"{config_path} cannot be read: {error}. Download the model again.") from error
    nested = config.get("text_config")
    text_config: dict[str, Any] = nested if isinstance(nested, dict) else config
    weight_bytes = sum(path.stat().st_size for path in config_path.parent.glob("*.safetensors"))
    architectures = config.get("architectures") or [config.get("model_type", "unknown")]
    return [
        ("Model", model),
        ("Architecture", str(architectures[0])),
        *((name, str(value)) for name, keys in _FACTS if (value := _first(text_config, keys)) is not None),
        ("Weights", format_bytes(weight_bytes) if weight_bytes else "not on this machine"),
    ]


def machine_facts(settings: Settings) -> list[tuple[str, str]]:
    """Where a model would run, and what is free there."""
    from batching.machine import num_cores

    memory = device_memory(settings.engine)
    place = "GPU" if memory.is_gpu else "machine"
    return [
        ("Device", _device(settings)),
        ("CPU cores", str(num_cores())),
        ("Free memory", f"{format_bytes(memory.free_bytes)} of the {place}"),
    ]


def serving_facts(settings: Settings) -> list[tuple[str, str]]:
    """How the model would be served, as far as its files say; nothing where they are broken or not here."""
    profile = read_catalog(settings).default
    try:
        facts, need = facts_of(profile), estimate_memory(profile, settings.engine, device_memory(settings.engine))
        directory = find_directory(profile.model, is_embedded=profile.is_embedded)
        has_template = directory is not None and read_template_source(directory) is not None
    except ModelNotUsable as error:
        return [("Problem", error.message)]
    rows: list[tuple[str, str]] = []
    if facts is not None:
        rows.append(("Parameters", f"{facts.num_weights / 1e6:,.1f} million"))
    if directory is not None:
        rows.append(("Chat template", "its own" if has_template else "none: /v1/completions alone"))
    if need is not None:
        rows.append(("Memory", need.explain()))
    return rows


def find_config(model: str, *, is_offline: bool) -> Path:
    """config.json of the embedded model, a directory, or a hub name (fetched alone unless offline)."""
    if model == EMBEDDED_MODEL:
        spec = find_spec("batching.pico")
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0]) / "weights" / "config.json"
    directory = Path(model).expanduser()
    if directory.is_dir():
        return directory / "config.json"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, "config.json", local_files_only=is_offline))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotUsable(f"{model!r} cannot be found on the hub: {error}. Name a local directory.") from error


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> object:
    return next((config[key] for key in keys if config.get(key) is not None), None)


def _device(settings: Settings) -> str:
    from batching.model_loader import resolve_device

    return str(resolve_device(settings.engine.device))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
