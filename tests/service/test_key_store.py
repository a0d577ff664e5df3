"""Keys follow their file while the server runs; a broken file leaves them as they were."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from contracts.errors import SettingsError
from contracts.settings import ServerSettings
from service.key_file import FileSignature
from service.key_store import KeyStore

OLD = b"sk-canary-old-0123456789"
NEW = b"sk-canary-new-0123456789"
FIXED = b"sk-canary-variable-0123456789"


def table(label: str, key: bytes) -> str:
    return f'[[keys]]\nlabel = "{label}"\nkey = "{key.decode()}"\n'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private file with the old key, looked at a hundred times a second."""
    monkeypatch.setattr("service.key_store.CHECK_INTERVAL_S", 0.01)
    path = tmp_path / "keys.toml"
    path.write_text(table("old", OLD))
    path.chmod(0o600)
    return path


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def open_store(path: Path) -> KeyStore:
    return KeyStore.open(ServerSettings(api_keys_file=str(path), api_keys=f"fixed={FIXED.decode()}"))


def replace(path: Path, text: str) -> None:
    """Put a new file in the place of the old one, as careful writers do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.rename(path)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def events(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines]


def test_without_settings_there_are_no_keys() -> None:
    store = KeyStore.open(ServerSettings())
    assert not store.is_enabled
    assert store.find(OLD) is None


def test_variable_and_file_are_both_valid(path: Path) -> None:
    store = open_store(path)
    assert store.is_enabled
    assert [found.label for key in (FIXED, OLD, NEW) if (found := store.find(key))] == ["fixed", "old"]


@pytest.mark.parametrize("text", ["", "keys = []", "nonsense", table("fixed", NEW), table("other", FIXED)])
def test_file_without_usable_keys_is_refused_at_the_start(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError):
        open_store(path)


async def test_new_file_takes_effect_and_ends_the_old_keys(path: Path, lines: list[Any]) -> None:
    store = open_store(path)
    async with store.watch():
        replace(path, table("new", NEW))
        await until(lambda: store.find(NEW) is not None)
        assert store.find(OLD) is None
        assert store.find(FIXED) is not None
    assert events(lines) == ["api_keys_reloaded"]


async def test_file_that_is_written_in_place_takes_effect_too(path: Path) -> None:
    store = open_store(path)
    async with store.watch():
        path.write_text(table("new", NEW))
        await until(lambda: store.find(NEW) is not None)


async def test_change_of_the_time_alone_is_noticed(path: Path, lines: list[Any]) -> None:
    async with open_store(path).watch():
        os.utime(path, (1, 1))
        await until(lambda: "api_keys_reloaded" in events(lines))


async def test_unchanged_file_is_not_read_again(path: Path, lines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    store = open_store(path)

    def sign_as_before(path: Path) -> FileSignature | None:
        looks.append(path)
        return store._signature

    monkeypatch.setattr("service.key_store.sign_file", sign_as_before)
    async with store.watch():
        await until(lambda: len(looks) >= 5)
    assert lines == []


@pytest.mark.parametrize("text", ["sk-canary", "", "[[keys]]", table("fixed", NEW), "[[keys]]\nsk-canary-key = 5"])
async def test_broken_file_keeps_the_keys_and_is_logged_once_without_secrets(
    path: Path, lines: list[Any], text: str
) -> None:
    store = open_store(path)
    async with store.watch():
        replace(path, text)
        await until(lambda: "api_keys_kept" in events(lines))
        await asyncio.sleep(0.1)
        assert store.find(OLD) is not None
        replace(path, table("new", NEW))
        await until(lambda: store.find(NEW) is not None)
    assert events(lines) == ["api_keys_kept", "api_keys_reloaded"]
    assert [line["log_level"] for line in lines] == ["error", "info"]
    assert "canary" not in str(lines)


async def test_vanished_file_keeps_the_keys_until_it_is_back(path: Path, lines: list[Any]) -> None:
    store = open_store(path)
    async with store.watch():
        text = path.read_text()
        path.unlink()
        await until(lambda: "api_keys_kept" in events(lines))
        await asyncio.sleep(0.1)
        assert store.find(OLD) is not None
        replace(path, text)
        await until(lambda: "api_keys_reloaded" in events(lines))
    assert len(lines) == 2


async def test_file_is_read_beside_the_event_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    monkeypatch.setattr("service.key_store.sign_file", lambda path: asyncio.get_running_loop())
    with pytest.raises(RuntimeError, match="no running event loop"):
        async with store.watch():
            await asyncio.sleep(0.2)


async def test_file_that_others_can_read_is_warned_about_whenever_it_is_taken(path: Path, lines: list[Any]) -> None:
    path.chmod(0o644)
    store = open_store(path)
    assert lines == []
    async with store.watch():
        path.write_text(table("new", NEW))
        await until(lambda: len(lines) >= 3)
    warning = "api_keys_file_open_to_others"
    assert events(lines) == [warning, "api_keys_reloaded", warning]
    assert lines[0]["mode"] == "0644"
