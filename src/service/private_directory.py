"""The directory that holds the engine's socket: one for each run, which only this user can enter."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from contracts.errors import StartupError

SOCKET_NAME = "engine.sock"
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
        raise StartupError(f"No directory for the engine's socket can be made: {error}. {_REMEDY}") from error


def _make_in(parent: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="quire-", dir=parent))
    path_len = len(os.fsencode(directory / SOCKET_NAME))
    if path_len <= MAX_SOCKET_PATH_BYTES:
        return directory
    directory.rmdir()
    raise OSError(f"{directory / SOCKET_NAME} has {path_len} bytes, a socket's name at most {MAX_SOCKET_PATH_BYTES}")


def remove_private_directory(socket_path: Path) -> None:
    """Leave nothing behind; for a child whose supervisor is gone. Another child may have been quicker."""
    with contextlib.suppress(OSError):
        socket_path.unlink(missing_ok=True)
        socket_path.parent.rmdir()
