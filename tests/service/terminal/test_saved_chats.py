"""Files of the chat are private, whole, and never written over somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import InvalidValue
from service.terminal.saved_chats import (
    MAX_HISTORY_BYTES,
    chats_directory,
    history_path,
    path_to_load,
    path_to_save,
    prepare_history,
    saved_names,
    write_private,
)


def test_directories_follow_xdg(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "s"), "XDG_DATA_HOME": "relative"}
    assert history_path(environ) == tmp_path / "s" / "quire" / "chat_history"
    assert chats_directory(environ) == Path.home() / ".local/share/quire/chats"


def test_written_files_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = path_to_save("", None, "a", tmp_path / "new")
    write_private(path, b"1")
    write_private(path, b"2")
    assert path.read_bytes() == b"2"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]


def test_history_is_private_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "state" / "chat_history"
    prepare_history(path)
    assert path.stat().st_mode & 0o777 == 0o600
    entry = b"\n# 2026-11-21 10:00:00\n+" + b"x" * 1000 + b"\n"
    path.write_bytes(entry * (MAX_HISTORY_BYTES // len(entry) + 2))
    prepare_history(path)
    assert path.read_bytes().startswith(b"\n# 2026")
    assert path.stat().st_size < MAX_HISTORY_BYTES * 0.6


def test_nameless_save_takes_the_title_and_a_number(tmp_path: Path) -> None:
    first = path_to_save("", None, "What's a/quire?", tmp_path)
    first.touch()
    second = path_to_save("", None, "What's a/quire?", tmp_path)
    assert (first.name, second.name) == ("what-s-a-quire.json", "what-s-a-quire-2.json")
    assert path_to_save("", first, None, tmp_path) == first
    assert path_to_save("", None, None, tmp_path).name == "chat.json"


def test_file_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.touch()
    with pytest.raises(InvalidValue, match="exists"):
        path_to_save(str(path), None, None, tmp_path)
    with pytest.raises(InvalidValue, match="directory"):
        path_to_save(str(tmp_path), None, None, tmp_path)
    assert path_to_save(str(path), path, None, tmp_path) == path


def test_saved_ones_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "trip.json"
    path.touch()
    assert path_to_load(str(path), tmp_path) == path_to_load("trip", tmp_path) == path
    assert saved_names(tmp_path) == ["trip"]
    assert saved_names(tmp_path / "none") == []
    with pytest.raises(InvalidValue, match="no file other"):
        path_to_load("other", tmp_path)
