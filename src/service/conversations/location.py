"""Where the conversations are kept, from the settings; knows no SQLAlchemy, so that a start pays nothing for it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec

from contracts.errors import SettingsError
from contracts.settings import ServerSettings

OFF: Final = "none"
FILE_NAME: Final = "conversations.db"
_VARIABLE = "LLM_CONVERSATIONS_URL"
_PARAMETERS = frozenset({"sslmode"})
_POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """One database: a file of SQLite, or the URL of a PostgreSQL server, which may hold a password."""

    path: Path | None = None
    postgres_url: str | None = None

    def __repr__(self) -> str:
        return f"Location(path={self.path!r})" if self.path is not None else "Location(postgres_url='***')"

    @property
    def kind(self) -> str:
        """What logs call it."""
        return "postgresql" if self.path is None else "sqlite"


def find_location(settings: ServerSettings, environ: Mapping[str, str] = os.environ) -> Location | None:
    """The database that the settings name; None where conversations are off. Raises SettingsError; opens nothing."""
    if settings.conversations_url is not None:
        if settings.conversations_db is not None:
            raise SettingsError(f"--conversations-db and {_VARIABLE} are both given. Give one of them.")
        return _from_url(settings.conversations_url)
    if settings.conversations_db == OFF:
        return None
    if settings.conversations_db is None:
        return Location(path=_data_directory(environ) / "quire" / FILE_NAME)
    path = Path(settings.conversations_db).expanduser()
    if "\0" in settings.conversations_db or not path.name:
        raise SettingsError(f"--conversations-db is {settings.conversations_db!r}, which is no name of a file.")
    return Location(path=path)


def _data_directory(environ: Mapping[str, str]) -> Path:
    """$XDG_DATA_HOME where it is absolute, as its specification demands, else its default."""
    given = Path(environ.get("XDG_DATA_HOME", ""))
    if given.is_absolute():
        return given
    try:
        return Path.home() / ".local" / "share"
    except RuntimeError:
        raise SettingsError("There is no home directory for conversations. Give --conversations-db.") from None


def _from_url(url: str) -> Location:
    """Messages here say what is wrong and nothing of the URL, which holds a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise SettingsError(f"{_VARIABLE} is no URL.") from None
    if parts.scheme == "sqlite":
        raise SettingsError(f"{_VARIABLE} is for PostgreSQL. Name a file of SQLite with --conversations-db.")
    if parts.scheme not in _POSTGRES_SCHEMES or not _names_database(parts):
        raise SettingsError(f"{_VARIABLE} is not of the form postgresql://user:password@host:port/name.")
    if set(parse_qs(parts.query, keep_blank_values=True)) - _PARAMETERS:
        raise SettingsError(f"{_VARIABLE} has a parameter after '?' that is not known here; there is sslmode.")
    if importlib.util.find_spec("asyncpg") is None:
        raise SettingsError(f"{_VARIABLE} names PostgreSQL, which needs asyncpg: pip install 'quire[postgres]'.")
    return Location(postgres_url=parts._replace(scheme="postgresql+asyncpg").geturl())


def _names_database(parts: SplitResult) -> bool:
    return bool(parts.path.strip("/")) and "/" not in parts.path.strip("/")
