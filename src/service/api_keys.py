"""Keys that may use the server: what a key may do, where keys are declared as text, and how one is recognised.

Only SHA-256 digests of keys are kept. Knows nothing of HTTP, and of files only that key_file reads them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final, Literal, get_args

import msgspec

from contracts.errors import SettingsError
from contracts.generation import Tenant
from contracts.settings import Settings

KeyScope = Literal["infer", "admin", "metrics"]
ALL_SCOPES: Final[frozenset[KeyScope]] = frozenset(get_args(KeyScope))

MIN_KEY_LEN = 16
MAX_KEY_LEN = 512
LABEL_PATTERN = r"^[A-Za-z0-9._-]{1,64}\Z"
LABEL_RULE = "1 to 64 letters, digits, dots, dashes and underscores"
HASH_PREFIX = "sha256:"

_VARIABLE = "LLM_API_KEYS"
_LABEL = re.compile(LABEL_PATTERN)
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_VISIBLE_ASCII = re.compile(r"[!-~]*")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: what is known of a key, without the key."""

    label: str
    scopes: frozenset[KeyScope]
    tenant: Tenant

    @property
    def cache_salt(self) -> str:
        """What keeps prefix blocks to the requests of one tenant; a hash, so that no label can be made to collide."""
        return (
            hashlib.sha256(b"quire prefix cache\0" + self.tenant.name.encode()).hexdigest() if self.tenant.name else ""
        )


class KeyEntry(msgspec.Struct, frozen=True):
    """One key as it is declared and as it is kept."""

    digest: bytes
    """SHA-256 of the key."""
    api_key: ApiKey


ANONYMOUS: Final = ApiKey(label="", scopes=ALL_SCOPES, tenant=Tenant())
"""Everybody, where no key is configured."""


class Keyring:
    """The keys of one moment; immutable."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[KeyEntry]) -> None:
        """Raises SettingsError where two entries have the same label or the same key."""
        self._entries = tuple(entries)
        labels: set[str] = set()
        digests: dict[bytes, str] = {}
        for entry in self._entries:
            label = entry.api_key.label
            if label in labels:
                raise SettingsError(f"Two API keys have the label '{label}'. Give each key a label of its own.")
            if entry.digest in digests:
                raise SettingsError(f"The API keys '{digests[entry.digest]}' and '{label}' are the same. Remove one.")
            labels.add(label)
            digests[entry.digest] = label

    @property
    def num_keys(self) -> int:
        return len(self._entries)

    def find(self, key: bytes) -> ApiKey | None:
        """What is known of the key; takes the same time whichever key it is, or nearly is."""
        if len(key) > MAX_KEY_LEN:
            return None
        digest = hashlib.sha256(key).digest()
        found: ApiKey | None = None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry.api_key
        return found


def read_variable(text: str) -> list[KeyEntry]:
    """The keys of LLM_API_KEYS: `label=key` or a key alone, with commas between them; each may do everything.

    Instead of a key its hash may stand, as `sha256:` and 64 hexadecimal digits. Raises SettingsError, which tells the
    number of an entry and nothing of what it holds.
    """
    entries: list[KeyEntry] = []
    for number, part in enumerate(text.split(","), start=1):
        label, equals, key = part.strip().partition("=")
        if not equals:
            label, key = f"key-{number}", label
        if not _LABEL.fullmatch(label.strip()):
            raise SettingsError(
                f"{_VARIABLE}, entry {number}: what stands before '=' is no label: that is {LABEL_RULE}. "
                "A key that holds '=' needs a label before it."
            )
        if any(entry.api_key.label == label.strip() for entry in entries):
            raise SettingsError(f"{_VARIABLE}, entry {number}: its label has been given before. Use another.")
        digest = digest_of(key.strip(), f"{_VARIABLE}, entry {number}")
        api_key = ApiKey(label=label.strip(), scopes=ALL_SCOPES, tenant=Tenant(name=label.strip()))
        entries.append(KeyEntry(digest, api_key))
    return entries


def digest_of(key: str, place: str) -> bytes:
    """SHA-256 of a key, or what its hash says; raises SettingsError, which names the place and never the key."""
    if key.startswith(HASH_PREFIX):
        if not _HASH.fullmatch(key):
            raise SettingsError(f"{place}: after '{HASH_PREFIX}' there must be 64 lower-case hexadecimal digits.")
        return bytes.fromhex(key.removeprefix(HASH_PREFIX))
    if not MIN_KEY_LEN <= len(key) <= MAX_KEY_LEN:
        raise SettingsError(
            f"{place}: the key has {len(key)} characters, but needs {MIN_KEY_LEN} to {MAX_KEY_LEN}. "
            "`quire key new` makes a strong one."
        )
    if not _VISIBLE_ASCII.fullmatch(key):
        raise SettingsError(f"{place}: the key may hold visible ASCII characters only. `quire key new` makes such.")
    return hashlib.sha256(key.encode()).digest()


def hash_text(digest: bytes) -> str:
    """A digest as it stands in a file: `sha256:` and its hexadecimal digits."""
    return HASH_PREFIX + digest.hex()


def seal_keys(settings: Settings) -> Settings:
    """The settings with hashes in place of keys, so that no key stays in memory; raises SettingsError."""
    if settings.server.api_keys is None:
        return settings
    entries = read_variable(settings.server.api_keys)
    sealed = ",".join(f"{entry.api_key.label}={hash_text(entry.digest)}" for entry in entries)
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, api_keys=sealed))
