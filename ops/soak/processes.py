"""What the processes of a server hold, from /proc: memory, file descriptors, threads. Knows nothing of HTTP."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ops.bench.server_process import PAGE_BYTES, list_tree, read_parents

MAX_NAME_CHARS = 48


class ProcessSample(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one moment."""

    pid: int
    name: str
    """Its command line without directories, cut short."""
    rss_bytes: int
    num_fds: int
    num_threads: int


class TreeSample(msgspec.Struct, frozen=True, kw_only=True):
    """A server and all its descendants at one moment."""

    at_s: float
    """Monotonic."""
    processes: list[ProcessSample]

    @property
    def rss_bytes(self) -> int:
        """Resident memory; a page shared by two processes counts twice."""
        return sum(process.rss_bytes for process in self.processes)

    @property
    def num_fds(self) -> int:
        return sum(process.num_fds for process in self.processes)

    @property
    def num_threads(self) -> int:
        return sum(process.num_threads for process in self.processes)


def sample_tree(root_pid: int, at_s: float) -> TreeSample:
    """Sample the process and its descendants; those that end meanwhile or cannot be read are left out."""
    samples = [sample_process(pid) for pid in list_tree(root_pid, read_parents())]
    return TreeSample(at_s=at_s, processes=[sample for sample in samples if sample is not None])


def sample_process(pid: int) -> ProcessSample | None:
    """One process; None when it is gone, a zombie, or another user's."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        if fields[0] in "ZX":
            return None
        return ProcessSample(
            pid=pid,
            name=describe_command((folder / "cmdline").read_bytes()),
            rss_bytes=int((folder / "statm").read_text().split()[1]) * PAGE_BYTES,
            num_fds=sum(1 for _ in (folder / "fd").iterdir()),
            num_threads=int(fields[17]),
        )
    except OSError:
        return None


def describe_command(cmdline: bytes) -> str:
    """A NUL-separated command line as a short name."""
    words = cmdline.decode("utf-8", "replace").replace("\0", " ").split()
    return " ".join(re.sub(r"^.*/(?=[^/]+$)", "", word) for word in words)[:MAX_NAME_CHARS]
