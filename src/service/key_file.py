"""Reads the TOML file of API keys: `[[keys]]` tables, strictly; no error repeats a value from the file.

Knows nothing of when the file is read: that is key_store.
"""

from __future__ import annotations

import difflib
import math
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from contracts.errors import SettingsError
from contracts.generation import Tenant
from service.api_keys import HASH_PREFIX, LABEL_PATTERN, LABEL_RULE, ApiKey, KeyEntry, KeyScope, digest_of

MAX_FILE_BYTES = 16 * 1024 * 1024
_PLACE_IN_TOML = re.compile(r"\(at [^)]*\)\Z")
_HARMLESS_NAME = re.compile(r"[a-z_]{1,32}")

Count = Annotated[int, Meta(ge=1)]


class KeyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[keys]]` table; either `key` or `hash` is given."""

    label: Annotated[str, Meta(pattern=LABEL_PATTERN)]
    key: str | None = None
    key_hash: str | None = msgspec.field(default=None, name="hash")
    scopes: Annotated[list[KeyScope], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["infer"])
    weight: Annotated[float, Meta(gt=0)] = 1.0
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrency: Count | None = None


class FileSignature(msgspec.Struct, frozen=True):
    """What of a file changes whenever its content does."""

    mtime_ns: int
    num_bytes: int
    inode: int


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the file."""

    entries: list[KeyEntry]
    permissions: int
    """The permission bits, such as 0o600."""

    @property
    def is_open_to_others(self) -> bool:
        """Other users of the machine may read or write it; its group may read it, as in mounted secrets."""
        return bool(self.permissions & (stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO))


def sign_file(path: Path) -> FileSignature | None:
    """The signature now; None where nothing can be known of the file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return FileSignature(status.st_mtime_ns, status.st_size, status.st_ino)


def read_key_file(path: Path) -> KeyFile:
    """The keys in the file, at least one; raises SettingsError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"The file of API keys {path} is no ordinary file.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"The file of API keys {path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"The file of API keys {path} is larger than {MAX_FILE_BYTES} bytes.")
    entries = parse_keys(data, str(path))
    if not entries:
        raise SettingsError(f"The file of API keys {path} holds no [[keys]] table. `quire key new` makes one.")
    return KeyFile(entries=entries, permissions=stat.S_IMODE(status.st_mode))


def parse_keys(data: bytes, name: str) -> list[KeyEntry]:
    """The keys in a file's bytes; `name` is what messages call it. Raises SettingsError."""
    try:
        document = tomllib.loads(data.decode())
    except RecursionError:
        raise SettingsError(f"{name} is nested too deeply; it holds [[keys]] tables only.") from None
    except ValueError as error:
        place = _PLACE_IN_TOML.search(str(error))
        raise SettingsError(f"{name} is not valid TOML in UTF-8{f' {place[0]}' if place else ''}.") from None
    _check_names(document, ["keys"], name)
    tables = document.get("keys", [])
    for number, table in enumerate(tables if isinstance(tables, list) else [], start=1):
        if isinstance(table, dict):
            _check_names(table, list(KeyTable.__struct_encode_fields__), f"{name}, key {number}")
    return [_entry(table, f"{name}, key {number}") for number, table in enumerate(_tables(tables, name), start=1)]


def _tables(tables: Any, name: str) -> list[KeyTable]:
    try:
        return msgspec.convert(tables, list[KeyTable])
    except msgspec.ValidationError as error:
        detail, _, path = str(error).rpartition(" - at `$")
        if "matching regex" in detail:
            detail = f"Expected {LABEL_RULE}"
        place = f"keys{path.removesuffix('`')}" if detail else "keys"
        raise SettingsError(f"{name}, {place}: {detail or str(error)}.") from None


def _entry(table: KeyTable, place: str) -> KeyEntry:
    secret = table.key if table.key is not None else table.key_hash
    if secret is None or (table.key is not None and table.key_hash is not None):
        raise SettingsError(f"{place} ('{table.label}'): give either 'key' or 'hash'.")
    if table.key_hash is not None and not table.key_hash.startswith(HASH_PREFIX):
        raise SettingsError(f"{place} ('{table.label}'): 'hash' must begin with '{HASH_PREFIX}'.")
    if not math.isfinite(table.weight):
        raise SettingsError(f"{place} ('{table.label}'): 'weight' must be a finite number.")
    tenant = Tenant(
        name=table.label,
        weight=table.weight,
        requests_per_minute=table.requests_per_minute,
        tokens_per_minute=table.tokens_per_minute,
        max_concurrency=table.max_concurrency,
    )
    api_key = ApiKey(label=table.label, scopes=frozenset(table.scopes), tenant=tenant)
    return KeyEntry(digest_of(secret, f"{place} ('{table.label}')"), api_key)


def _check_names(table: dict[str, Any], known: list[str], place: str) -> None:
    for name in table:
        if name in known:
            continue
        shown = f"'{name}'" if _HARMLESS_NAME.fullmatch(name) else "a name"
        near = difflib.get_close_matches(name[:64], known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known are {', '.join(known)}."
        raise SettingsError(f"{place} holds {shown} that is not known. {hint}")
