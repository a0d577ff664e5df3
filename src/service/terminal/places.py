"""Whether the server finds what it needs of the machine: its port, room on the disk, a place for sockets, its keys."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from contracts.checkup import Finding
from contracts.errors import StartupError
from contracts.settings import ServerSettings, Settings
from contracts.sizes import format_bytes
from service.api_keys import read_variable
from service.conversations.location import Location, find_location
from service.exposure import check_exposure
from service.key_file import read_key_file
from service.listen_address import find_listen_address
from service.private_directory import (
    MAX_ENGINES,
    MAX_SOCKET_PATH_BYTES,
    make_private_directory,
    remove_private_directory,
    socket_name,
)
from service.terminal.examination import found

MIN_FREE_BYTES = 16 * 1024**2
"""Below this the database of conversations could not even write its log."""
LOW_FREE_BYTES = 512 * 1024**2
PROBE_BYTES = 64 * 1024
_SQLITE = b"SQLite format 3\0"


def check_port(server: ServerSettings) -> Finding:
    """Free at this moment; raises AddressInUse with the holder and the next free port."""
    address = find_listen_address(server.host, server.port)
    if server.port == 0:
        return found("ok", f"A free port will be taken on {address.ip}; {address.port} is one.", port=address.port)
    return found("ok", f"Port {address.port} on {address.ip} is free.", port=address.port, address=address.ip)


def check_disk(server: ServerSettings, min_free_bytes: int = MIN_FREE_BYTES) -> Finding:
    """The place of the conversations takes what is written to it."""
    location = find_location(server)
    if location is None:
        return found("skipped", "No conversations are kept (--conversations-db none).")
    if location.path is None:
        return found("skipped", "Conversations are kept in PostgreSQL, which is asked when the server starts.")
    return _check_file(location, location.path, min_free_bytes)


def _check_file(location: Location, path: Path, min_free_bytes: int) -> Finding:
    place = next(parent for parent in path.absolute().parents if parent.exists())
    remedy = "Name another file with --conversations-db, or keep none with --conversations-db none."
    try:
        if path.exists():
            _check_database(path)
        _write_probe(place)
        free_bytes = shutil.disk_usage(place).free
    except OSError as error:
        reason = error.strerror or str(error)
        return found("failed", f"Conversations cannot be written to {path}: {reason}.", remedy, path=str(path))
    told = f"{format_bytes(free_bytes)} free for conversations in {place}"
    numbers: dict[str, int | str] = {"free_bytes": free_bytes, "path": str(path), "kind": location.kind}
    if free_bytes < min_free_bytes:
        return found("failed", f"Only {told}.", f"Make room, or: {remedy[0].lower()}{remedy[1:]}", **numbers)
    if free_bytes < LOW_FREE_BYTES:
        return found("warning", f"Only {told}.", "Make room before the disk is full.", **numbers)
    return found("ok", f"{told}; a test file of {format_bytes(PROBE_BYTES)} was written.", **numbers)


def _check_database(path: Path) -> None:
    with path.open("r+b") as file:
        if file.read(len(_SQLITE)) not in (_SQLITE, b""):
            raise OSError("the file is there, and no SQLite database")


def _write_probe(place: Path) -> None:
    with tempfile.TemporaryFile(dir=place, prefix="quire-doctor-") as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def check_sockets() -> Finding:
    """A Unix socket can be bound where the engines' would be."""
    directory = make_private_directory()
    try:
        path = directory / socket_name(0)
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
            listener.bind(str(path))
    except OSError as error:
        raise StartupError(f"No Unix socket can be bound in {directory.parent}: {error}. Set TMPDIR.") from error
    finally:
        remove_private_directory(directory)
    path_len = len(os.fsencode(directory / socket_name(MAX_ENGINES)))
    return found(
        "ok",
        f"A socket was bound in {directory.parent}; its longest name has {path_len} of {MAX_SOCKET_PATH_BYTES} bytes.",
        path_bytes=path_len,
        max_path_bytes=MAX_SOCKET_PATH_BYTES,
    )


def check_keys(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Keys can be read and are nobody else's business; nobody reaches an open server from outside."""
    server = settings.server
    check_exposure(settings, environ)
    num_keys = 0 if server.api_keys is None else len(read_variable(server.api_keys))
    if server.api_keys_file is None:
        if num_keys:
            return found(
                "ok", f"{num_keys} API keys from LLM_API_KEYS; the server listens on {server.host}.", num_keys=num_keys
            )
        return found("ok", f"No API key; the server listens on {server.host}, which needs none.", num_keys=0)
    path = Path(server.api_keys_file)
    file = read_key_file(path)
    num_keys += len(file.entries)
    numbers: dict[str, int | str] = {"num_keys": num_keys, "permissions": oct(file.permissions)}
    if file.is_open_to_others:
        summary = f"{path} can be read or written by other users (mode {file.permissions:04o})."
        return found("warning", summary, f"Run `chmod 600 {path}`.", **numbers)
    return found("ok", f"{num_keys} API keys; {path} has mode {file.permissions:04o}.", **numbers)
