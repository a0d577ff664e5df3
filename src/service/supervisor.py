"""Starts, watches, restarts and drains the engine processes and the HTTP workers. No torch, no HTTP.

Whatever ends unasked is started again, with growing pauses; whatever is silent for too long is ended first. A child
that says itself that it cannot start ends everything, with its reason and its exit code, unless it is the engine of a
model that was asked for later.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from contracts.engine import EngineInfo
from contracts.errors import QuireError, StartupError
from contracts.frames import (
    BEAT_S,
    Drain,
    ErrorReport,
    Failed,
    LaunchWorker,
    MailboxCount,
    MailboxNews,
    MailboxOrder,
    ModelOrder,
    Models,
    OrderDone,
    SupervisorBound,
    UseModel,
    WorkerReady,
)
from contracts.model_catalog import ModelCatalog
from contracts.settings import Settings
from service.event_loop import leave_now
from service.listen_address import ListenAddress
from service.mailbox_exchange import MailboxExchange
from service.model_fleet import NO_LIMIT_S, FleetHooks, ModelFleet
from service.private_directory import make_private_directory
from service.process_keeper import ProcessKeeper

STOP_GRACE_S = 5.0
"""Beyond the drain time, until a child that has not left is ended."""
WORKER_TIMEOUT_S = 10.0
COUNT_EVERY_S = 0.2

log = structlog.get_logger("service.supervisor")


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorHooks:
    """What whoever runs the supervisor is told, in the event loop's thread."""

    on_ready: Callable[[EngineInfo], None] = lambda info: None
    """Once: the default model's engine and every worker serve."""
    on_progress: Callable[[str, float | None], None] = lambda stage, fraction: None
    on_draining: Callable[[float], None] = lambda timeout_s: None


class Supervisor:
    """Owner of all other processes and of the private directory with their sockets.

    Life cycle: loading (a signal ends everything at once), serving, draining (a second signal ends it at once).
    """

    def __init__(
        self, settings: Settings, catalog: ModelCatalog, address: ListenAddress, hooks: SupervisorHooks
    ) -> None:
        self._settings = settings
        self._hooks = hooks
        self._directory = make_private_directory()
        self.fleet = ModelFleet(
            settings,
            catalog,
            self._directory,
            FleetHooks(
                on_change=self._tell_workers,
                on_ready=self._note_model,
                on_progress=self._report,
                on_fatal=self._fail,
            ),
        )
        self.workers = [
            ProcessKeeper(
                f"worker-{number + 1}",
                "service.worker",
                lambda: LaunchWorker(settings, str(self._directory), address.ip, catalog, self.fleet.table),
                WORKER_TIMEOUT_S,
                self._handle,
            )
            for number in range(settings.server.workers)
        ]
        self._exchange = MailboxExchange(self._deliver, self._note_mailboxes)
        self._places: dict[str, str] = {}
        """Of each worker, when it last opened or posted something."""
        self._is_count_due = False
        self._info: EngineInfo | None = None
        self._is_announced = False
        self._failure: StartupError | None = None
        self._orders: set[asyncio.Task[None]] = set()
        self._is_stopping = asyncio.Event()
        self._has_failed = asyncio.Event()

    @property
    def _keepers(self) -> list[ProcessKeeper]:
        return [*self.fleet.keepers, *self.workers]

    async def run(self) -> None:
        """Serve until a signal, then drain; raises the StartupError that a child ended with, or of a crash loop."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self._handle_signal, signum)
        self.fleet.launch()
        working = [asyncio.create_task(self._keep(worker)) for worker in self.workers]
        watch = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(self._is_stopping.wait())
        failing = asyncio.create_task(self._has_failed.wait())
        try:
            await asyncio.wait({*working, stopping, failing, watch}, return_when=asyncio.FIRST_COMPLETED)
            self._is_stopping.set()
            if self._failure is None and self._is_announced:
                await self._drain(working)
        finally:
            self._is_stopping.set()
            self.fleet.close()
            self._kill_all()
            for task in (watch, stopping, failing, *self._orders):
                task.cancel()
            outcomes = await asyncio.gather(*working, *self.fleet.running, return_exceptions=True)
            shutil.rmtree(self._directory, ignore_errors=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if self._failure is not None:
            raise self._failure

    # ---- children

    async def _keep(self, worker: ProcessKeeper) -> None:
        try:
            await worker.run()
        except StartupError as error:
            self._fail(error)

    def _handle(self, worker: ProcessKeeper, message: SupervisorBound) -> None:
        if isinstance(message, UseModel):
            self.fleet.use(message.alias)
        elif isinstance(message, ModelOrder):
            order = asyncio.create_task(self._obey(worker, message))
            self._orders.add(order)
            order.add_done_callback(self._orders.discard)
        elif isinstance(message, MailboxOrder):
            self._exchange.handle(self._enter(worker), message)
        elif isinstance(message, Failed):
            worker.note_refusal(message.error.to_error())
        elif isinstance(message, WorkerReady):
            worker.note_ready()
            self._announce()

    async def _obey(self, worker: ProcessKeeper, order: ModelOrder) -> None:
        """Do what an operator wants, and say how it went; the table has told all workers before."""
        child = worker.child
        error: QuireError | None = None
        try:
            if order.verb == "load":
                await self.fleet.load(order.alias)
            elif order.verb == "default":
                await self.fleet.set_default(order.alias)
            else:
                await self.fleet.unload(order.alias, NO_LIMIT_S if order.timeout_s is None else order.timeout_s)
        except QuireError as failure:
            error = failure
        if worker.child is child:  # one that has taken its place counts its own orders
            worker.send(OrderDone(order.number, None if error is None else ErrorReport.of(error)))

    def _tell_workers(self) -> None:
        table = Models(self.fleet.table)
        for worker in self.workers:
            worker.send(table)

    def _enter(self, worker: ProcessKeeper) -> str:
        """The worker's place; those of its earlier lives are forgotten."""
        place = worker.place
        known = self._places.get(worker.name)
        if known != place:
            self._places[worker.name] = place
            if known is not None:
                self._exchange.forget(known)
        return place

    def _deliver(self, place: str, message: MailboxNews) -> bool:
        for worker in self.workers:
            if worker.place == place and worker.child is not None:
                worker.send(message)
                return True
        return False

    def _note_mailboxes(self) -> None:
        """Workers are told of the number of mailboxes soon, however often it changes."""
        if not self._is_count_due:
            self._is_count_due = True
            asyncio.get_running_loop().call_later(COUNT_EVERY_S, self._tell_count)

    def _tell_count(self) -> None:
        self._is_count_due = False
        for worker in self.workers:
            worker.send(MailboxCount(self._exchange.num_open))

    def _note_model(self, alias: str, info: EngineInfo) -> None:
        if self._info is None:
            self._info = info
            self._announce()

    def _announce(self) -> None:
        if self._info is not None and not self._is_announced and all(one.has_been_ready for one in self.workers):
            self._is_announced = True
            self._hooks.on_ready(self._info)

    def _report(self, stage: str, fraction: float | None) -> None:
        if not self._is_announced:
            self._hooks.on_progress(stage, fraction)

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
            for keeper in self._keepers:
                keeper.watch(is_excused=was_away)

    # ---- the end

    async def _drain(self, working: list[asyncio.Task[None]]) -> None:
        """Workers first: while they drain, the engines still compute what they wait for."""
        server = self._settings.server
        self.fleet.close()
        log.info("draining", delay_s=server.drain_delay_s, timeout_s=server.drain_timeout_s)
        self._hooks.on_draining(server.drain_timeout_s)
        limit_s = server.drain_delay_s + server.drain_timeout_s + STOP_GRACE_S
        await _stop(self.workers, Drain(server.drain_delay_s, server.drain_timeout_s), working, limit_s)
        await _stop(self.fleet.keepers, Drain(0.0, 0.0), self.fleet.running, STOP_GRACE_S)

    def _kill_all(self) -> None:
        for keeper in self._keepers:
            keeper.retire()
            keeper.kill()

    def _handle_signal(self, signum: signal.Signals) -> None:
        if self._is_stopping.is_set():
            self._kill_all()
            shutil.rmtree(self._directory, ignore_errors=True)
            leave_now(128 + signum)
        self._is_stopping.set()


async def _stop(keepers: list[ProcessKeeper], order: Drain, tasks: list[asyncio.Task[None]], limit_s: float) -> None:
    """Let children end, at most so long; what is left then is for the caller to kill."""
    for keeper in keepers:
        keeper.drain(order)
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=limit_s)
        if late:
            log.warning("processes_cut", num_processes=len(late), after_s=limit_s)
