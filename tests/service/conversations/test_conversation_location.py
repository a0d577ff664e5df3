"""Where conversations are kept follows from the settings, and no message shows a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.settings import ServerSettings
from service.conversations.location import Location, find_location

URL = "postgresql://ann:sesame-7@db.example:5433/talk"


@pytest.mark.parametrize(
    ("given", "environ", "path"),
    [
        (None, {"XDG_DATA_HOME": "/data"}, Path("/data/quire/conversations.db")),
        (None, {"XDG_DATA_HOME": "relative"}, Path.home() / ".local/share/quire/conversations.db"),
        (None, {}, Path.home() / ".local/share/quire/conversations.db"),
        ("talk.db", {}, Path("talk.db")),
        ("~/talk.db", {}, Path.home() / "talk.db"),
    ],
)
def test_file(given: str | None, environ: dict[str, str], path: Path) -> None:
    assert find_location(ServerSettings(conversations_db=given), environ) == Location(path=path)


def test_none_switches_conversations_off() -> None:
    assert find_location(ServerSettings(conversations_db="none")) is None


def test_url_goes_to_the_asynchronous_driver() -> None:
    pytest.importorskip("asyncpg")
    found = find_location(ServerSettings(conversations_url=URL))
    assert found == Location(postgres_url="postgresql+asyncpg://ann:sesame-7@db.example:5433/talk")


@pytest.mark.parametrize(
    "settings",
    [
        ServerSettings(conversations_url="sesame-7"),
        ServerSettings(conversations_url="mysql://ann:sesame-7@db/talk"),
        ServerSettings(conversations_url="sqlite:///sesame-7.db"),
        ServerSettings(conversations_url="postgresql://ann:sesame-7@db"),
        ServerSettings(conversations_url="postgresql://ann:sesame-7@db:port/talk"),
        ServerSettings(conversations_url="postgresql://ann:sesame-7@[db/talk"),
        ServerSettings(conversations_url="postgresql://ann@db/talk?password=sesame-7"),
        ServerSettings(conversations_url=URL, conversations_db="talk.db"),
        ServerSettings(conversations_db=""),
        ServerSettings(conversations_db="/"),
        ServerSettings(conversations_db="a\0b"),
    ],
)
def test_impossible_place_is_refused_without_a_password(settings: ServerSettings) -> None:
    with pytest.raises(SettingsError) as caught:
        find_location(settings)
    assert "sesame" not in caught.value.message


def test_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'quire\[postgres\]'"):
        find_location(ServerSettings(conversations_url=URL))


def test_password_is_never_shown() -> None:
    settings = ServerSettings(conversations_url=URL)
    assert "sesame" not in repr(settings) + repr(Location(postgres_url=URL))
