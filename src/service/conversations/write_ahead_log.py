"""Keeps the write-ahead log of a SQLite file short, and free of what was deleted; knows no tables.

SQLite copies the log into the file by itself, but begins it anew only when nobody reads, never makes it shorter, and
leaves in it what it held: so a deleted text would stay readable there.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
"""SQLite itself begins anew at about 4 MiB, where no reader is in the way."""
WAIT_S: Final = 0.2
"""For readers, while no one writes."""
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 5.0
_log = structlog.get_logger("service.conversations")


class WriteAheadLog:
    """Owner: `database.Database`, whose lock keeps its writes away from each attempt.

    Where readers are in the way, it tries again later, as often as needed.
    """

    def __init__(self, path: Path, write_lock: asyncio.Lock) -> None:
        self._path = path
        self._log_path = path.with_name(f"{path.name}-wal")
        self._write_lock = write_lock
        self._has_erased = True
        """The log may hold what was deleted; at first, by a process that was killed."""
        self._later: asyncio.Task[None] | None = None

    async def settle(self, *, has_erased: bool) -> None:
        """After a write, with the lock held. Never fails: what was written is safe either way."""
        self._has_erased |= has_erased
        is_waiting = self._later is not None and not self._later.done()
        if not is_waiting and not await asyncio.to_thread(self._attempt):
            self._later = asyncio.create_task(self._settle_later(), name="quire-write-ahead-log")

    async def close(self) -> None:
        """Try no more. The last connection that closes its file removes the log."""
        if self._later is not None:
            self._later.cancel()
            await asyncio.gather(self._later, return_exceptions=True)

    async def _settle_later(self) -> None:
        pause_s, is_settled = FIRST_PAUSE_S, False
        while not is_settled:
            await asyncio.sleep(pause_s)
            async with self._write_lock:
                is_settled = await asyncio.to_thread(self._attempt)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _attempt(self) -> bool:
        """Whether the log is as it should be."""
        try:
            if not self._has_erased and self._log_path.stat().st_size <= MAX_LOG_BYTES:
                return True
            with closing(sqlite3.connect(self._path, timeout=WAIT_S, isolation_level=None)) as connection:
                (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except FileNotFoundError:
            return True
        except (sqlite3.Error, OSError) as error:
            _log.warning("log_not_emptied", reason=type(error).__name__)
            return False
        self._has_erased = self._has_erased and bool(is_busy)
        return not is_busy
