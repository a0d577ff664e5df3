"""Where the chat keeps files: saved conversations and the history of what was typed. Only their owner may read them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from contracts.errors import InvalidValue, clip

SUFFIX: Final = ".json"
MAX_HISTORY_BYTES: Final = 512 * 1024
MAX_SLUG_LEN: Final = 40
MAX_FILE_BYTES: Final = 64 * 1024 * 1024


def history_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file of what was typed."""
    return _directory(environ, "XDG_STATE_HOME", ".local/state") / "chat_history"


def chats_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `/save` without a name puts conversations, and `/load` looks for names that are no files."""
    return _directory(environ, "XDG_DATA_HOME", ".local/share") / "chats"


def _directory(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """As the XDG Base Directory Specification says: a relative path is as good as none."""
    given = Path(environ.get(variable, ""))
    return (given if given.is_absolute() else Path("~").expanduser() / default) / "quire"


def prepare_history(path: Path) -> None:
    """Make the file, for its owner alone, and cut its older half where it has grown too large. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)
    if path.stat().st_size > MAX_HISTORY_BYTES:
        content = path.read_bytes()
        cut = content.find(b"\n# ", len(content) // 2)  # each entry begins with its date
        write_private(path, content[cut:] if cut >= 0 else b"")


def write_private(path: Path, content: bytes) -> None:
    """Write the whole file or nothing of it, for its owner alone. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def path_to_save(argument: str, known: Path | None, title: str | None, directory: Path) -> Path:
    """Where to save: the file that is named, else the one that is known, else a new one in `directory`.

    Raises InvalidValue for a file that exists and is not the known one, OSError where there can be no directory.
    """
    if not argument:
        return known or _unused(directory, title)
    path = Path(argument).expanduser()
    if path.is_dir():
        raise InvalidValue(f"{clip(argument)} is a directory. Name a file in it.")
    if path.exists() and (known is None or path.resolve() != known.resolve()):
        raise InvalidValue(f"{clip(argument)} exists. Remove it, or name another file.")
    return path


def path_to_load(argument: str, directory: Path) -> Path:
    """The file that is meant, by path or by its name among the saved ones. Raises InvalidValue."""
    given = Path(argument).expanduser()
    for path in (given, directory / argument, directory / f"{argument}{SUFFIX}"):
        if path.is_file():
            return path
    raise InvalidValue(f"There is no file {clip(argument)}, and none of that name in {directory}.")


def read_saved(path: Path) -> bytes:
    """The file's content. Raises InvalidValue."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidValue(f"{path} is larger than {MAX_FILE_BYTES // 1024**2} MiB: no saved conversation is.")
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror or error}.") from None


def saved_names(directory: Path) -> list[str]:
    """Of the conversations there, the newest first."""
    files = [(path.stat().st_mtime, path.stem) for path in directory.glob(f"*{SUFFIX}") if path.is_file()]
    return [name for _, name in sorted(files, reverse=True)]


def _unused(directory: Path, title: str | None) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    slug = re.sub(r"[^\w]+", "-", (title or "").lower()).strip("-_")[:MAX_SLUG_LEN].strip("-") or "chat"
    number = 1
    path = directory / f"{slug}{SUFFIX}"
    while path.exists():
        number += 1
        path = directory / f"{slug}-{number}{SUFFIX}"
    return path
