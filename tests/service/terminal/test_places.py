"""The doctor finds a taken port and its holder, a full or closed disk, keys that others can read."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import ServerSettings, Settings
from service.port_holder import find_port_holder
from service.terminal.examination import examine
from service.terminal.places import PROBE_BYTES, check_disk, check_keys, check_port, check_sockets

KEY_FILE = '[[keys]]\nlabel = "a"\nkey = "sk-0123456789abcdef"\n'


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def tiny_files() -> Iterator[None]:
    """No file may grow beyond half of the doctor's probe."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PROBE_BYTES // 2, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def server(path: Path | str = "none", **values: Any) -> ServerSettings:
    return ServerSettings(conversations_db=str(path), **values)


def test_free_port_is_well() -> None:
    finding = check_port(server(port=0))
    assert (finding.state, finding.evidence["port"]) == ("ok", int(finding.summary.split()[-3]))


def test_taken_port_names_its_holder_and_a_free_one(taken_port: int) -> None:
    finding = examine("port", lambda: check_port(server(port=taken_port)))
    assert (finding.name, finding.state) == ("port", "failed")
    assert f", process {os.getpid()}." in finding.summary
    assert (finding.remedy or "").split()[-1].rstrip(".").isdigit()


def test_holder_of_another_user_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
    (tmp_path / "net" / "tcp").write_text("  sl  local_address ...\n" + row)
    assert find_port_holder(8080, tmp_path) is None
    holder = tmp_path / "42"
    (holder / "fd").mkdir(parents=True)
    (holder / "comm").write_text("nginx\n")
    (holder / "fd" / "3").symlink_to("socket:[4711]")
    assert find_port_holder(8080, tmp_path) == "nginx, process 42"
    assert find_port_holder(8081, tmp_path) is None


def test_disk_with_room_is_well(tmp_path: Path) -> None:
    finding = check_disk(server(tmp_path / "not yet" / "c.db"))
    assert (finding.state, list(tmp_path.iterdir())) == ("ok", [])


def test_disk_that_is_almost_full_fails_with_the_flag(tmp_path: Path) -> None:
    finding = check_disk(server(tmp_path / "c.db"), min_free_bytes=2**62)
    assert finding.state == "failed"
    assert "--conversations-db" in (finding.remedy or "")


@pytest.mark.usefixtures("tiny_files")
def test_disk_that_takes_no_more_fails(tmp_path: Path) -> None:
    finding = check_disk(server(tmp_path / "c.db"))
    assert (finding.state, "cannot be written" in finding.summary) == ("failed", True)


def test_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_text("hello, this is text")
    assert "no SQLite database" in check_disk(server(tmp_path / "c.db")).summary


def test_no_conversations_need_no_disk() -> None:
    assert check_disk(server()).state == "skipped"


def test_socket_can_be_bound_and_is_gone() -> None:
    finding = check_sockets()
    assert finding.state == "ok"
    assert int(str(finding.evidence["path_bytes"])) <= 107


def test_long_temporary_directory_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    finding = examine("sockets", check_sockets)
    assert (finding.state, "TMPDIR" in (finding.remedy or "")) == ("failed", True)


@pytest.mark.parametrize(("mode", "state"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warning")])
def test_key_file_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, state: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(KEY_FILE)
    path.chmod(mode)
    finding = check_keys(Settings(server=server(api_keys_file=str(path))), {})
    assert (finding.state, finding.evidence["num_keys"]) == (state, 1)


def test_open_server_without_keys_fails() -> None:
    finding = examine("keys", lambda: check_keys(Settings(server=server(host="0.0.0.0")), {}))  # noqa: S104
    assert (finding.state, "--insecure-no-auth" in (finding.remedy or "")) == ("failed", True)


def test_keys_of_the_variable_are_counted() -> None:
    finding = check_keys(Settings(server=server(api_keys="a=sk-0123456789abcdef,b=sk-fedcba9876543210")), {})
    assert (finding.state, finding.evidence["num_keys"]) == ("ok", 2)
