"""What /proc says of the processes of one run, found by the directory for temporary files that they have inherited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""
ACCEPTING = 0x10000
"""__SO_ACCEPTCON in /proc/net/unix."""


def processes_of(temporary: Path) -> dict[int, str]:
    """Command lines by process id of everything that runs with TMPDIR set to this directory."""
    found = {}
    marker = b"TMPDIR=" + bytes(temporary)
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if marker in (directory / "environ").read_bytes().split(b"\0") and not _is_zombie(directory):
                    found[int(directory.name)] = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it has just ended, or is another user's
    return found


def open_files(pid: int) -> list[str]:
    """What the file descriptors of a process stand for, in words and sorted; sockets and pipes are all alike."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(link.readlink()).partition(":[")[0])
        except FileNotFoundError:
            continue  # closed just now
    return sorted(names)


def listening_ports(pids: list[int]) -> list[int]:
    """The TCP port of every listening socket of these processes, one entry for each socket."""
    inodes = set(_socket_inodes(pids))
    ports = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports


def server_of(pids: list[int], client_port: int) -> int:
    """Which of these processes has the other end of this machine's connection from `client_port`."""
    remote = f":{client_port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {fields[9] for fields in lines if fields[2].endswith(remote)}
    (pid,) = (pid for pid in pids if inodes & set(_socket_inodes([pid])))
    return pid


def listening_unix_paths(pids: list[int]) -> list[str]:
    """The name of every listening Unix socket of these processes; empty for one without a name."""
    inodes = set(_socket_inodes(pids))
    paths = []
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[3], 16) & ACCEPTING and fields[6] in inodes:
            paths.append(fields[7] if len(fields) > 7 else "")
    return paths


def _socket_inodes(pids: list[int]) -> Iterator[str]:
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]


def _is_zombie(directory: Path) -> bool:
    return (directory / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
