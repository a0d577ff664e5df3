"""The directory that holds the engines' sockets: one for each run, which only this user can enter."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from contracts.errors import StartupError

MAX_ENGINES = 1_000_000
"""Of one run; for the length of a name."""
MAX_SOCKET_PATH_BYTES = 107
"""What the kernel takes as the address of a Unix socket (sun_path, without its last byte)."""
_REMEDY = "Set TMPDIR to a directory with a short name that can be written to."


def make_private_directory() -> Path:
    """Make it below XDG_RUNTIME_DIR where that can be used, else among the temporary files.

    Raises StartupError where there is no such place.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        with contextlib.suppress(OSError):
            return _make_in(runtime)
    try:
        return _make_in(tempfile.gettempdir())
    except OSError as error:
        raise StartupError(f"No directory for the engines' sockets can be made: {error}. {_REMEDY}") from error


def _make_in(parent: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="quire-", dir=parent))
    longest = directory / socket_name(MAX_ENGINES)
    path_len = len(os.fsencode(longest))
    if path_len <= MAX_SOCKET_PATH_BYTES:
        return directory
    directory.rmdir()
    raise OSError(f"{longest} has {path_len} bytes, a socket's name at most {MAX_SOCKET_PATH_BYTES}")


def socket_name(number: int) -> str:
    """Of the engine that is the so-manieth of this run."""
    return f"engine-{number}.sock"


def remove_private_directory(directory: Path) -> None:
    """Leave nothing behind; for a child whose supervisor is gone. Another child may have been quicker."""
    with contextlib.suppress(OSError):  # also of the listing, while another child removes what is listed
        for path in directory.glob("engine-*.sock"):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()
