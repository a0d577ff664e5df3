"""Starts, watches, restarts and drains the engine process and the HTTP workers. No torch, no HTTP.

Whatever ends unasked is started again, with growing pauses; whatever is silent for too long is ended first. A child
that says itself that it cannot start ends everything, with its reason and its exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from contracts.engine import EngineInfo
from contracts.errors import QuireError, StartupError
from contracts.frames import (
    BEAT_S,
    Alive,
    ChildBound,
    Drain,
    EngineReady,
    Failed,
    LaunchEngine,
    LaunchWorker,
    Progress,
    SupervisorBound,
)
from contracts.settings import Settings
from service.child_process import ChildProcess
from service.event_loop import leave_now
from service.listen_address import ListenAddress
from service.private_directory import SOCKET_NAME, make_private_directory
from service.restart_policy import RestartPolicy

STOP_GRACE_S = 5.0
"""Beyond the drain time, until a child that has not left is ended."""
WORKER_TIMEOUT_S = 10.0

log = structlog.get_logger("service.supervisor")


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorHooks:
    """What whoever runs the supervisor is told, in the event loop's thread."""

    on_ready: Callable[[EngineInfo], None] = lambda info: None
    """Once: the engine and every worker serve."""
    on_progress: Callable[[str, float | None], None] = lambda stage, fraction: None
    on_draining: Callable[[float], None] = lambda timeout_s: None


class _Slot:
    """A place that one child after another fills."""

    def __init__(self, name: str, module: str, launch: ChildBound, timeout_s: float) -> None:
        self.name = name
        self.module = module
        self.launch = launch
        self.timeout_s = timeout_s
        self.policy = RestartPolicy()
        self.child: ChildProcess | None = None
        self.has_been_ready = False


class Supervisor:
    """Owner of all other processes and of the private directory with their socket.

    Life cycle: loading (a signal ends everything at once), serving, draining (a second signal ends it at once).
    """

    def __init__(self, settings: Settings, address: ListenAddress, hooks: SupervisorHooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._directory = make_private_directory()
        socket_path = str(self._directory / SOCKET_NAME)
        timeout_s = settings.server.engine_timeout_s
        self._engine = _Slot("engine", "service.engine_process", LaunchEngine(settings, socket_path, 0.0), timeout_s)
        worker = LaunchWorker(settings, socket_path, address.ip)
        self._workers = [
            _Slot(f"worker-{number + 1}", "service.worker", worker, WORKER_TIMEOUT_S)
            for number in range(settings.server.workers)
        ]
        self._info: EngineInfo | None = None
        self._is_announced = False
        self._failure: StartupError | None = None
        self._is_stopping = asyncio.Event()
        self._has_failed = asyncio.Event()

    @property
    def _slots(self) -> list[_Slot]:
        return [self._engine, *self._workers]

    async def run(self) -> None:
        """Serve until a signal, then drain; raises the StartupError that a child ended with, or of a crash loop."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self._handle_signal, signum)
        keepers = {slot.name: asyncio.create_task(self._keep(slot)) for slot in self._slots}
        watch = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(self._is_stopping.wait())
        failing = asyncio.create_task(self._has_failed.wait())
        try:
            await asyncio.wait({*keepers.values(), stopping, failing, watch}, return_when=asyncio.FIRST_COMPLETED)
            self._is_stopping.set()
            if self._failure is None and self._is_announced:
                await self._drain(keepers)
        finally:
            self._is_stopping.set()
            self._kill_all()
            for task in (watch, stopping, failing):
                task.cancel()
            outcomes = await asyncio.gather(*keepers.values(), return_exceptions=True)
            shutil.rmtree(self._directory, ignore_errors=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if self._failure is not None:
            raise self._failure

    # ---- children

    async def _keep(self, slot: _Slot) -> None:
        """Start the child again and again until the supervisor stops or gives up."""
        while not self._is_stopping.is_set():
            child = slot.child = await ChildProcess.start(
                slot.name, slot.module, _dated(slot.launch), lambda message: self._handle(slot, message)
            )
            if self._is_stopping.is_set():
                child.kill()
            log.debug("process_started", process=slot.name, pid=child.pid)
            status = await child.wait()
            slot.child = None
            if self._is_stopping.is_set() or self._has_failed.is_set():
                return
            if not slot.has_been_ready:
                self._fail(StartupError(f"The {slot.name} ended while starting ({_describe(status)})."))
                return
            delay_s = slot.policy.delay_after(child.lived_s)
            if delay_s is None:
                self._fail(
                    StartupError(
                        f"The {slot.name} ended {slot.policy.num_short_lives} times in a row, each within a minute of "
                        f"its start; the last time: {_describe(status)}. The log above says more."
                    )
                )
                return
            log.error("process_ended", process=slot.name, status=_describe(status), restart_in_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), delay_s)

    def _handle(self, slot: _Slot, message: SupervisorBound) -> None:
        if isinstance(message, Alive):
            return
        if isinstance(message, Progress):
            if not self._is_announced:
                self._hooks.on_progress(message.stage, message.fraction)
        elif isinstance(message, Failed):
            self._handle_failure(slot, message.error.to_error())
        elif slot.child is not None:
            slot.child.is_ready = slot.has_been_ready = True
            log.info("process_ready", process=slot.name, pid=slot.child.pid, after_s=round(slot.child.lived_s, 2))
            if isinstance(message, EngineReady):
                self._info = message.info
            if self._info is not None and not self._is_announced and all(slot.has_been_ready for slot in self._slots):
                self._is_announced = True
                self._hooks.on_ready(self._info)

    def _handle_failure(self, slot: _Slot, error: QuireError) -> None:
        """A first start that fails is final; a later one may be an accident such as full memory."""
        if not slot.has_been_ready:
            self._fail(error if isinstance(error, StartupError) else StartupError(error.message))

    def _fail(self, error: StartupError) -> None:
        if self._failure is None:
            self._failure = error
            self._has_failed.set()

    async def _watch(self) -> None:
        """End children that were ready once and have said nothing for too long."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await asyncio.sleep(BEAT_S)
            was_away = loop.time() - began_s > 2 * BEAT_S  # this process stood still; the children are not to blame
            for slot in self._slots:
                child = slot.child
                if child is None or not child.is_ready:
                    continue
                if was_away:
                    child.excuse()
                elif child.silent_s > slot.timeout_s:
                    log.error("process_hung", process=slot.name, silent_s=round(child.silent_s, 1))
                    child.is_ready = False
                    child.kill()

    # ---- the end

    async def _drain(self, keepers: dict[str, asyncio.Task[None]]) -> None:
        """Workers first: while they drain, the engine still computes what they wait for."""
        server = self._settings.server
        log.info("draining", delay_s=server.drain_delay_s, timeout_s=server.drain_timeout_s)
        self._hooks.on_draining(server.drain_timeout_s)
        limit_s = server.drain_delay_s + server.drain_timeout_s + STOP_GRACE_S
        await self._stop(self._workers, Drain(server.drain_delay_s, server.drain_timeout_s), keepers, limit_s)
        await self._stop([self._engine], Drain(0.0, 0.0), keepers, STOP_GRACE_S)

    async def _stop(
        self, slots: list[_Slot], order: Drain, keepers: dict[str, asyncio.Task[None]], limit_s: float
    ) -> None:
        for slot in slots:
            if slot.child is not None:
                slot.child.send(order)
        _, late = await asyncio.wait([keepers[slot.name] for slot in slots], timeout=limit_s)
        if late:
            log.warning("processes_cut", num_processes=len(late), after_s=limit_s)

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.child is not None:
                slot.child.kill()

    def _handle_signal(self, signum: signal.Signals) -> None:
        if self._is_stopping.is_set():
            self._kill_all()
            shutil.rmtree(self._directory, ignore_errors=True)
            leave_now(128 + signum)
        self._is_stopping.set()


def _dated(launch: ChildBound) -> ChildBound:
    """The order as it is sent now."""
    if isinstance(launch, LaunchEngine):
        return msgspec.structs.replace(launch, launched_s=time.monotonic())
    return launch


def _describe(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"exit status {status}"
