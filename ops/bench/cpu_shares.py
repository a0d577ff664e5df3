"""Who used the processor: the server's processes and the load generator's, by their names, from /proc.

On a small machine the load generator takes part of what the server could use; without this a reader cannot tell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ops.bench.server_process import list_tree, read_parents

ROLES = {"service.engine_process": "engine", "service.worker": "workers", "service.supervisor": "supervisor"}
"""What a command line contains, to the name of the process that has it."""
LOADER, SERVER = "loader", "server"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class CpuShares:
    """From its making to `read`: the CPU seconds of this process and all its descendants."""

    def __init__(self, server_pid: int | None) -> None:
        """`server_pid`: the server, when it is a descendant of this process."""
        self._server_pid = server_pid
        self._before = self._measure()

    def read(self) -> dict[str, float]:
        """CPU seconds by role since the beginning; a process that has ended is counted with its last parent or not
        at all."""
        return {role: round(cpu_s - self._before.get(role, 0.0), 3) for role, cpu_s in sorted(self._measure().items())}

    def _measure(self) -> dict[str, float]:
        parents = read_parents()
        server = set() if self._server_pid is None else set(list_tree(self._server_pid, parents))
        by_role: dict[str, float] = {}
        for pid in list_tree(os.getpid(), parents):
            role = role_of(pid) if pid in server else LOADER
            by_role[role] = by_role.get(role, 0.0) + cpu_s_of(pid)
        return by_role


def role_of(pid: int) -> str:
    """The part that a process of the server plays, from its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return SERVER
    return next((ROLES[word] for word in words if word in ROLES), SERVER)


def cpu_s_of(pid: int) -> float:
    """User and system seconds of all threads of a process; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def format_cpu_shares(cpu_s: Mapping[str, float], duration_s: float) -> str:
    """One line: cores of each role on average."""
    parts = ", ".join(f"{role} {seconds / duration_s:.2f}" for role, seconds in cpu_s.items())
    return f"cores used on average: {parts}; of {os.cpu_count()}"
