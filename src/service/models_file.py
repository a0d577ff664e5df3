"""Reads the TOML file that declares models: `[[models]]` tables, strictly. Knows no flags and no disk but the file.

Every refusal names the file, the table and the key, with the value where it helps and what would be right.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from contracts.errors import SettingsError, clip
from contracts.model_catalog import ProfileSampling
from contracts.settings import Positive
from contracts.sizes import parse_bytes

MAX_FILE_BYTES = 1024 * 1024


class ModelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[models]]` table as it is written; what is not given stays as a ready entry or the checkpoint has it."""

    alias: str
    model: str | None = None
    """None: the ready entry that is called like the alias."""
    display_name: str | None = None
    description: str | None = None
    family: str | None = None
    template: str | None = None
    is_chat: bool | None = None
    max_model_len: Positive | None = None
    dtype: Literal["auto", "float32", "bfloat16"] | None = None
    kv_cache_memory: str | None = None
    memory: str | None = None
    sampling: ProfileSampling | None = None


class DeclaredTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table and what messages call it."""

    table: ModelTable
    place: str


def read_models_file(path: Path) -> list[DeclaredTable]:
    """The tables of the file, at least one; raises SettingsError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"The models file {path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"The models file {path} is larger than {MAX_FILE_BYTES} bytes.")
    return parse_models(data, str(path))


def parse_models(data: bytes, name: str) -> list[DeclaredTable]:
    """The tables in a file's bytes; `name` is what messages call it. Raises SettingsError."""
    try:
        document = tomllib.loads(data.decode())
    except RecursionError:
        raise SettingsError(f"{name} is nested too deeply; it holds [[models]] tables only.") from None
    except ValueError as error:
        raise SettingsError(f"{name} is not valid TOML in UTF-8: {clip(str(error))}.") from None
    _check_names(document, ["models"], name)
    tables = document.get("models")
    if not isinstance(tables, list) or not tables:
        raise SettingsError(f'{name} declares no model: write a [[models]] table with alias = "...".')
    return [_declared(table, f"{name}, model {number}") for number, table in enumerate(tables, start=1)]


def _declared(table: Any, place: str) -> DeclaredTable:
    if not isinstance(table, dict):
        raise SettingsError(f'{place} is {clip(repr(table), 60)}; write a [[models]] table with alias = "...".')
    alias = table.get("alias")
    if isinstance(alias, str):
        place = f"{place} ('{clip(alias, 60)}')"
    _check_names(table, list(ModelTable.__struct_fields__), place)
    if isinstance(sampling := table.get("sampling"), dict):
        _check_names(sampling, list(ProfileSampling.__struct_fields__), f"{place}, sampling")
    try:
        declared = msgspec.convert(table, ModelTable)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at `$.")
        key = path.removesuffix("`")
        shown = f" is {clip(repr(_value_at(table, key)), 60)}" if key else ""
        raise SettingsError(f"{place}{f', {key}' if key else ''}{shown}: {detail}.") from None
    for key in ("kv_cache_memory", "memory"):
        _check_size(getattr(declared, key), f"{place}, {key}")
    return DeclaredTable(table=declared, place=place)


def _value_at(table: dict[str, Any], key: str) -> object:
    value: Any = table
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _check_size(text: str | None, place: str) -> None:
    try:
        if text is not None:
            parse_bytes(text)
    except (ValueError, OverflowError):
        raise SettingsError(f"{place} is {clip(repr(text), 60)}, but needs a size such as 512MiB or 4GiB.") from None


def _check_names(table: dict[str, Any], known: list[str], place: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name[:64], known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known are {', '.join(known)}."
            raise SettingsError(f"{place} holds {clip(repr(name), 60)}, which is not known. {hint}")
