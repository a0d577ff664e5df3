"""Holds the keys that are valid now and follows their file: a new file takes effect within two seconds or so.

A file that cannot be used leaves the keys as they were. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from contracts.errors import SettingsError
from contracts.settings import ServerSettings
from service.api_keys import ApiKey, KeyEntry, Keyring, read_variable
from service.key_file import FileSignature, KeyFile, read_key_file, sign_file

CHECK_INTERVAL_S = 1.0

_log = structlog.get_logger("service.keys")


class KeyStore:
    """Owner of the current keyring; replaced as a whole, so that a request sees the old keys or the new ones."""

    def __init__(self, variable_entries: list[KeyEntry], path: Path | None) -> None:
        """Reads the file at once; raises SettingsError where there is a file or variable, but no usable key."""
        self._variable_entries = variable_entries
        self._path = path
        self._signature: FileSignature | None = None
        self._keyring = Keyring(variable_entries)
        self._file: KeyFile | None = None
        if path is not None:
            self._keyring = self._read(path)

    @classmethod
    def open(cls, settings: ServerSettings) -> KeyStore:
        """The keys that the settings name; raises SettingsError."""
        entries = [] if settings.api_keys is None else read_variable(settings.api_keys)
        path = None if settings.api_keys_file is None else Path(settings.api_keys_file).expanduser()
        return cls(entries, path)

    @property
    def is_enabled(self) -> bool:
        """Keys are configured, so that nobody is served without one."""
        return self._keyring.num_keys > 0

    @property
    def num_keys(self) -> int:
        return self._keyring.num_keys

    def find(self, key: bytes) -> ApiKey | None:
        """What is known of a key, in constant time."""
        return self._keyring.find(key)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Follow the file while the context is open."""
        if self._path is None:
            yield
            return
        self._warn_of_readers(self._path)
        watching = asyncio.create_task(self._watch(self._path))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, path: Path) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                keyring = await asyncio.to_thread(self._read_if_changed, path)
            except SettingsError as error:
                _log.error("api_keys_kept", reason=error.message, num_keys=self.num_keys)
                continue
            if keyring is not None:
                self._keyring = keyring
                _log.info("api_keys_reloaded", num_keys=keyring.num_keys)
                self._warn_of_readers(path)

    def _read_if_changed(self, path: Path) -> Keyring | None:
        return None if sign_file(path) == self._signature else self._read(path)

    def _read(self, path: Path) -> Keyring:
        """Signed before it is read: a write in between is seen at the next look."""
        self._signature = sign_file(path)
        self._file = read_key_file(path)
        return Keyring([*self._variable_entries, *self._file.entries])

    def _warn_of_readers(self, path: Path) -> None:
        if self._file is not None and self._file.is_open_to_others:
            mode = f"{self._file.permissions:04o}"
            _log.warning("api_keys_file_open_to_others", path=str(path), mode=mode, remedy="chmod 600")
