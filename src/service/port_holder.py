"""Which process listens on a port of this machine, as far as Linux shows it to this user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
_LISTENING = "0A"


def find_port_holder(port: int, proc: Path = PROC) -> str | None:
    """Such as `python3, process 4711`; None where another user's process, another container's, or none has it."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    if not wanted:
        return None
    for directory in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or it has just ended
            if any(str(link.readlink()) in wanted for link in (directory / "fd").iterdir()):
                return f"{(directory / 'comm').read_text().strip()}, process {directory.name}"
    return None


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / name).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
