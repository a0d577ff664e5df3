"""Runs transactions on the conversations' database, and says within seconds where there is none.

Opens it at the first transaction, in a thread; opens it again where the file has been replaced. A database that fails
is asked anew each time, so it heals by itself. Knows no tables.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from contracts.errors import ConversationsUnavailable, StorageFull
from service.conversations.connections import IS_WRITE, driver_errors, make_config
from service.conversations.location import Location
from service.conversations.schema import MIGRATIONS, SchemaNotKnown, prepare
from service.conversations.write_ahead_log import WriteAheadLog

TIMEOUT_S: Final = 2.0
"""Until the caller is told that the database does not answer; above what a lock or a connection may take."""
RETRY_AFTER_S: Final = 2.0
FULL_RETRY_AFTER_S: Final = 30.0
_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_NAMES: Final = frozenset({"SQLITE_FULL", "53100"})
"""SQLite's name, and PostgreSQL's state."""

T = TypeVar("T")
FileIdentity = tuple[int, int]
_log = structlog.get_logger("service.conversations")


class Database:
    """Owner of the connections of one process.

    `read` and `write` run in a task of their own: a caller that is cancelled interrupts no transaction. Writes of this
    process wait for each other here, in order; SQLite's own waiting is not fair.
    """

    def __init__(self, location: Location, *, timeout_s: float = TIMEOUT_S) -> None:
        self._location = location
        self._timeout_s = timeout_s
        self._errors = driver_errors(location)
        self._engine: AsyncEngine | None = None
        self._identity: FileIdentity | None = None
        self._opening: asyncio.Task[AsyncEngine] | None = None
        self._write_lock = asyncio.Lock()
        self._wal = None if location.path is None else WriteAheadLog(location.path, self._write_lock)
        self._num_written = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_sqlite(self) -> bool:
        return self._location.path is not None

    async def read(self, work: Callable[[AsyncSession], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """What `work` returns; raises ConversationsUnavailable, or the QuireError that `work` raises."""
        return await self._within_time(self._transact(work, is_write=False), timeout_s or self._timeout_s)

    async def write(
        self, work: Callable[[AsyncSession], Awaitable[T]], *, erases: bool = False, timeout_s: float | None = None
    ) -> T:
        """Likewise; what `work` did is on the disk when this returns, and undone when it raises.

        With `erases` what it deleted or wrote over is also removed from SQLite's log, at once or when readers have
        gone. Where ConversationsUnavailable is raised for want of an answer, it may be on the disk nevertheless.
        """
        await self._wait_for_turn()
        return await self._within_time(self._write_and_release(work, erases=erases), timeout_s or self._timeout_s)

    async def close(self) -> None:
        """Let running transactions end, then close the connections."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout_s)
        if self._wal is not None:
            await self._wal.close()
        await self._dispose()

    async def _wait_for_turn(self) -> None:
        """However many there are before, as long as they are served."""
        while True:
            num_written = self._num_written
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._write_lock.acquire()
                return
            except TimeoutError:
                if self._num_written == num_written:
                    raise self._unavailable("queue") from None

    async def _write_and_release(self, work: Callable[[AsyncSession], Awaitable[T]], *, erases: bool) -> T:
        try:
            result = await self._transact(work, is_write=True)
            self._num_written += 1
            if self._wal is not None:
                await self._wal.settle(has_erased=erases)
            return result
        finally:
            self._write_lock.release()

    async def _within_time(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            # It is not cancelled: a connection that is given up in the middle of a statement may keep its lock. Each
            # statement ends by the driver's own time.
            raise self._unavailable("timeout")
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone: nobody is to hear that nobody asked

    async def _transact(self, work: Callable[[AsyncSession], Awaitable[T]], *, is_write: bool) -> T:
        try:
            engine = await self._open()
            bound = engine.execution_options(**{IS_WRITE: is_write})
            async with AsyncSession(bound, expire_on_commit=False) as session, session.begin():
                return await work(session)
        except SchemaNotKnown as error:
            raise self._unavailable(str(error), f"{error} Update this server, or give it another database.") from error
        except self._errors as error:
            if _is_full(error):
                raise self._full(_name_of(error)) from error
            raise self._unavailable(_name_of(error)) from error

    async def _open(self) -> AsyncEngine:
        if self._engine is not None and await asyncio.to_thread(_identify, self._location.path) != self._identity:
            await self._dispose()
        if self._engine is not None:
            return self._engine
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_anew())
        opening = self._opening
        # Whoever comes meanwhile waits for the same attempt, and shares its end.
        await asyncio.wait({opening})
        if self._opening is opening:
            self._opening = None
        return opening.result()

    async def _open_anew(self) -> AsyncEngine:
        await asyncio.to_thread(prepare, self._location)
        self._identity = await asyncio.to_thread(_identify, self._location.path)
        self._engine = make_config(self._location, MIGRATIONS).get_engine()
        _log.info("conversations_opened", database=self._location.kind)
        return self._engine

    async def _dispose(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    def _unavailable(
        self, reason: str, detail: str = "The database of the conversations does not answer. Try again soon."
    ) -> ConversationsUnavailable:
        _log.error("conversations_unavailable", database=self._location.kind, reason=reason)
        return ConversationsUnavailable(
            f"{detail} Requests without a conversation are served.", retry_after_s=RETRY_AFTER_S
        )

    def _full(self, reason: str) -> StorageFull:
        _log.error("conversations_storage_full", database=self._location.kind, reason=reason)
        return StorageFull(
            "The disk of the conversations is full: nothing was kept. Conversations can be read, and requests without "
            "one are served. Delete some, or try again when there is room.",
            retry_after_s=FULL_RETRY_AFTER_S,
        )


def _identify(path: Path | None) -> FileIdentity | None:
    """Which file stands under the name now; None without a name, and where there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_full(error: BaseException) -> bool:
    origin = getattr(error, "orig", None) or error
    cause = getattr(origin, "__cause__", None) or origin  # SQLAlchemy wraps asyncpg's errors twice
    names = {getattr(one, name, None) for one in (origin, cause) for name in ("sqlite_errorname", "sqlstate")}
    return bool(names & _FULL_NAMES) or getattr(origin, "errno", None) in _FULL_ERRNOS


def _name_of(error: BaseException) -> str:
    """The kind of the failure: the driver's own words may quote what was to be written."""
    origin = getattr(error, "orig", None) or error
    code = getattr(origin, "sqlite_errorname", None) or getattr(origin, "sqlstate", None)
    return f"{type(origin).__name__} {code}" if code else type(origin).__name__
