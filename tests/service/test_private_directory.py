"""The socket's directory is for this user alone, short enough for a socket, and gone in the end."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from contracts.errors import StartupError
from service.private_directory import (
    MAX_SOCKET_PATH_BYTES,
    make_private_directory,
    remove_private_directory,
    socket_name,
)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary files go below `tmp_path`/t, and there is no runtime directory."""
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def test_only_this_user_can_enter(places: Path) -> None:
    directory = make_private_directory()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.stat().st_uid == os.getuid()
    assert directory.parent == places / "t"


def test_every_run_has_its_own() -> None:
    assert make_private_directory() != make_private_directory()


def test_runtime_directory_is_preferred(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places / "runtime"))
    assert make_private_directory().parent == places / "runtime"


@pytest.mark.parametrize("name", ["missing", "long" * 25])
def test_runtime_directory_that_cannot_be_used_is_passed_over(
    places: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As after `su`, where the variable names another user's directory."""
    (places / ("long" * 25)).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places / name))
    assert make_private_directory().parent == places / "t"
    assert list((places / ("long" * 25)).iterdir()) == []


@pytest.mark.parametrize("name", ["missing", "t" * 100])
def test_no_usable_place_is_one_clear_error(places: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (places / ("t" * 100)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places / name))
    with pytest.raises(StartupError, match="Set TMPDIR to a directory with a short name"):
        make_private_directory()
    assert list((places / ("t" * 100)).iterdir()) == []


def test_longest_path_is_what_a_socket_takes(places: Path) -> None:
    parent = places / "p"
    parent.mkdir()
    path = parent / ("s" * (MAX_SOCKET_PATH_BYTES - len(os.fsencode(parent)) - 1))
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(path))
        with pytest.raises(OSError, match="too long"):
            other.bind(f"{path}s")


def test_directory_that_another_child_removes_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_private_directory()

    def vanish(*_: object) -> None:
        directory.rmdir()
        raise FileNotFoundError(str(directory))

    monkeypatch.setattr(Path, "glob", vanish)
    remove_private_directory(directory)
    assert not directory.exists()


def test_nothing_is_left_and_twice_is_no_error() -> None:
    directory = make_private_directory()
    (directory / socket_name(1)).touch()
    (directory / socket_name(22)).touch()
    remove_private_directory(directory)
    remove_private_directory(directory)
    assert not directory.exists()
