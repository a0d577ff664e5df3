"""The models of one HTTP worker: connection, tokenizer and template of each that is loaded; asks for the others.

Owner: the worker's event loop. Knows the supervisor by its table of models and by what can be sent to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from contracts.errors import EngineDead, ModelLoadFailed, QuireError, ShuttingDown, StartupError
from contracts.frames import ErrorReport, ModelOrder, SupervisorBound, UseModel
from contracts.model_catalog import ModelCatalog
from contracts.model_state import ModelPhase, ModelState, ModelTable
from contracts.settings import ServerSettings, Settings
from service.engine_client import EngineClient
from service.engine_provider import (
    STARTING,
    STARTING_RETRY_AFTER_S,
    OrderVerb,
    Serving,
    Starting,
    StartupHooks,
    Status,
    has_memory,
    load_served_model,
    make_serving,
    operator_limits,
)
from service.overload_gate import FrontGate, OverloadGate
from service.translate import Limits

TOUCH_EVERY_S = 1.0
"""Between two words to the supervisor that a loaded model is in use."""
LEAVE_S = 30 * 86400.0
"""How long what runs on a model that drains may go on; the supervisor bounds it where it wants to."""
FAILED_RETRY_AFTER_S = 10.0

_log = structlog.get_logger("service.models")


class _Served(msgspec.Struct, frozen=True, kw_only=True):
    """A model that requests can be sent to."""

    serving: Serving
    client: EngineClient
    socket_path: str


class ModelPool:
    """A ModelProvider over a supervisor's engines. Life cycle: run -> update whenever the table changes -> drain."""

    def __init__(
        self,
        settings: Settings,
        catalog: ModelCatalog,
        table: ModelTable,
        send: Callable[[SupervisorBound], None],
        hooks: StartupHooks,
    ) -> None:
        self.catalog = catalog
        self._settings = settings
        self._table = table
        self._send = send
        self._hooks = hooks
        self._served: dict[str, _Served] = {}
        self._opening: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Socket path and task, by alias."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._unusable: dict[str, tuple[str, QuireError]] = {}
        """Loaded, but without a tokenizer that this worker can use: socket path and reason."""
        self._touched_s: dict[str, float] = {}
        self._orders: dict[int, asyncio.Future[None]] = {}
        self._num_orders = 0
        self._changed = asyncio.Event()
        self._is_started = False
        self._is_draining = False
        self._failure: StartupError | None = None
        self.gate = FrontGate(self._gates)

    # ---- what routes ask

    @property
    def table(self) -> ModelTable:
        """Every declared model as it is now."""
        return self._table

    @property
    def settings(self) -> ServerSettings:
        """Of the HTTP side."""
        return self._settings.server

    @property
    def limits(self) -> Limits:
        """Of every request, as the operator has set them."""
        return operator_limits(self._settings)

    @property
    def status(self) -> Status:
        """ok; starting; restarting: the default model's engine is on its way back; draining; or dead for good."""
        if self._failure is not None:
            return "dead"
        if self._is_draining:
            return "draining"
        if not self._is_started:
            return "starting"
        served = self._served.get(self._table.default_alias)
        if served is not None:
            return "ok" if served.client.stats().is_alive else "restarting"
        state = self._table.get(self._table.default_alias)
        return "restarting" if state.phase is ModelPhase.FAILED else "ok"  # a request for it loads it

    @property
    def is_ready(self) -> bool:
        """New requests will be served: nothing is amiss, and memory suffices."""
        served = self._served.get(self._table.default_alias)
        return self.status == "ok" and (served is None or has_memory(served.serving))

    @property
    def is_loaded(self) -> bool:
        """The default model can be asked."""
        return self._table.default_alias in self._served

    @property
    def serving(self) -> Serving:
        """The default model, if it is loaded; else Starting, EngineDead or ModelLoadFailed."""
        served = self._served.get(self._table.default_alias)
        if served is not None:
            return served.serving
        self.check_started()
        raise self._not_loaded(self._table.get(self._table.default_alias))

    def check_started(self) -> None:
        """Raise Starting until the default model was loaded once, EngineDead where it never will be."""
        if self._failure is not None:
            raise EngineDead("The model could not be loaded; the server's log says why.")
        if not self._is_started:
            raise Starting(STARTING, retry_after_s=STARTING_RETRY_AFTER_S)

    def all_serving(self) -> list[Serving]:
        """Every loaded model, in the order of declaration."""
        loaded = (self._served.get(state.alias) for state in self._table.models)
        return [served.serving for served in loaded if served is not None]

    def served(self, name: str | None) -> Serving | None:
        """The model of this name (None: the default) if it is loaded; ModelNotFound where nobody has declared it."""
        alias = self.catalog.find(name or self._table.default_alias).alias
        served = self._served.get(alias)
        if served is None:
            return None
        self._touch(alias)
        return served.serving

    async def serving_for(self, name: str | None) -> Serving:
        """The same, loading it first where needed. Raises ModelNotFound, Starting, ShuttingDown, ModelLoadFailed."""
        alias = self.catalog.find(name or self._table.default_alias).alias
        while (served := self._served.get(alias)) is None:
            self.check_started()
            if self._is_draining:
                raise ShuttingDown("the server is shutting down and loads no models", retry_after_s=5.0)
            state = self._table.get(alias)
            if state.phase in (ModelPhase.UNLOADED, ModelPhase.DRAINING, ModelPhase.FAILED):
                self._send(UseModel(alias))
            if state.phase is ModelPhase.FAILED or self._is_unusable(state):
                raise self._not_loaded(state)
            await self._changed.wait()
        self._touch(alias)
        return served.serving

    async def changes(self, alias: str) -> AsyncIterator[ModelState]:
        """The state of a model, now and at every change. KeyError: unknown."""
        told: ModelState | None = None
        while True:
            changed = self._changed
            state = self._table.get(alias)
            if state != told:
                told = state
                yield state
            await changed.wait()

    async def order(self, verb: OrderVerb, alias: str, timeout_s: float | None = None) -> None:
        """Have the supervisor load or unload a model, or make it the default. Raises ModelNotFound, ModelLoadFailed."""
        self.catalog.find(alias)
        self._num_orders += 1
        number = self._num_orders
        done = self._orders[number] = asyncio.get_running_loop().create_future()
        self._send(ModelOrder(number, verb, alias, timeout_s))
        try:
            await done
        finally:
            del self._orders[number]

    async def wait_until_loaded(self) -> None:
        """Until the default model was loaded once, or never will be."""
        while not self._is_started and self._failure is None:
            await self._changed.wait()

    # ---- what the supervisor says

    def update(self, table: ModelTable) -> None:
        """The table has changed."""
        self._table = table
        for state in table.models:
            self._follow(state)
        self._tell()

    def settle(self, number: int, error: ErrorReport | None) -> None:
        """An order has been obeyed, or cannot be."""
        done = self._orders.get(number)
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(ModelLoadFailed(error.message))

    # ---- the life of the worker

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connect at the start, leave at the end."""
        self.update(self._table)
        try:
            yield
        finally:
            opening = [task for _, task in self._opening.values()]
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            await self.drain(0.0)

    def begin_drain(self) -> None:
        """Say to whoever asks that no new requests should come; those that do are still taken."""
        self._is_draining = True

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, let what runs end within the time, and disconnect."""
        self._is_draining = True
        self._tell()
        await asyncio.gather(*(served.client.drain(timeout_s) for served in self._served.values()))
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    # ---- inside

    def _follow(self, state: ModelState) -> None:
        """Connect to what is ready, leave what is not."""
        alias, path = state.alias, state.socket_path
        is_ready = state.phase is ModelPhase.READY
        served, opening = self._served.get(alias), self._opening.get(alias)
        if opening is not None and not (is_ready and opening[0] == path):
            opening[1].cancel()
            del self._opening[alias]
            opening = None
        if served is not None and not (is_ready and served.socket_path == path):
            del self._served[alias]
            leaving = asyncio.create_task(served.client.drain(LEAVE_S), name=f"leave {alias}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            served = None
        if is_ready and served is None and opening is None and not self._is_unusable(state):
            self._opening[alias] = path, asyncio.create_task(self._open(state), name=f"open {alias}")

    async def _open(self, state: ModelState) -> None:
        gate = OverloadGate()
        client = await EngineClient.connect(Path(state.socket_path), self._settings.server.engine_timeout_s)
        try:
            client.take_num_refused = gate.take_num_refused
            model = await asyncio.to_thread(load_served_model, client.info, self.catalog.get(state.alias))
        except QuireError as error:
            await client.drain(0.0)
            self._give_up(state, error)
            return
        except BaseException:
            await client.drain(0.0)
            raise
        serving = make_serving(client, model, self._settings, gate)
        self._served[state.alias] = _Served(serving=serving, client=client, socket_path=state.socket_path)
        del self._opening[state.alias]
        _log.info("model_ready", model=client.info.model_name, device=client.info.device)
        if not self._is_started and state.alias == self._table.default_alias:
            self._is_started = True
            self._hooks.on_ready(client.info)
        self._tell()

    def _give_up(self, state: ModelState, error: QuireError) -> None:
        """The engine runs, but nothing can be said to it in words."""
        del self._opening[state.alias]
        _log.error("model_not_usable", model=state.alias, reason=error.message)
        self._unusable[state.alias] = state.socket_path, error
        if not self._is_started and state.alias == self._table.default_alias:
            self._failure = error if isinstance(error, StartupError) else StartupError(error.message)
            self._hooks.on_failure(self._failure)
        self._tell()

    def _is_unusable(self, state: ModelState) -> bool:
        return self._unusable.get(state.alias, ("", None))[0] == state.socket_path != ""

    def _not_loaded(self, state: ModelState) -> QuireError:
        _, error = self._unusable.get(state.alias, ("", None))
        reason = state.error if error is None or not self._is_unusable(state) else error.message
        if not reason:
            return EngineDead("The model is not loaded now.", retry_after_s=STARTING_RETRY_AFTER_S)
        return ModelLoadFailed(
            f"The model '{state.alias}' could not be loaded: {reason}", retry_after_s=FAILED_RETRY_AFTER_S
        )

    def _touch(self, alias: str) -> None:
        now_s = time.monotonic()
        if now_s - self._touched_s.get(alias, 0.0) > TOUCH_EVERY_S:
            self._touched_s[alias] = now_s
            self._send(UseModel(alias))

    def _tell(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _gates(self) -> list[OverloadGate]:
        return [served.serving.gate for served in self._served.values()]
