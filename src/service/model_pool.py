"""The models of one HTTP worker: connection, tokenizer and template of each that is loaded; asks for the others.

Owner: the worker's event loop. Knows the supervisor by its table of models and by what can be sent to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from contracts.errors import EngineDead, ModelLoadFailed, ModelNotUsable, QuireError, ShuttingDown, StartupError
from contracts.frames import SupervisorBound, UseModel
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
    Status,
    has_memory,
    load_served_model,
    make_serving,
    operator_limits,
)
from service.model_orders import ModelOrders
from service.overload_gate import FrontGate, OverloadGate
from service.translate import Limits

TOUCH_EVERY_S = 1.0
"""Between two words to the supervisor that a loaded model is in use."""
LEAVE_S = 30 * 86400.0
"""How long what runs on a model that drains may go on; the supervisor bounds it where it wants to."""
FAILED_RETRY_AFTER_S = 11.0
"""After a failed load, until a request waits for another try; a little more than the supervisor wants there to be."""

_log = structlog.get_logger("service.models")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolHooks:
    """What whoever owns a pool is told: one of these, once, in the event loop's thread."""

    on_started: Callable[[], None] = lambda: None
    """Requests are served: the default model is there, or was before this worker."""
    on_failure: Callable[[StartupError], None] = lambda error: None


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
        hooks: PoolHooks,
    ) -> None:
        self.catalog = catalog
        self._settings = settings
        self._table = table
        self._send = send
        self._hooks = hooks
        self._served: dict[str, _Served] = {}
        self._opening: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Socket path and task, by alias."""
        self._leaving: dict[asyncio.Task[None], EngineClient] = {}
        self._unusable: dict[str, tuple[str, QuireError]] = {}
        """Loaded, but without a tokenizer that this worker can use: socket path and reason."""
        self._failed_s: dict[str, float] = {}
        """When this worker learned that a load has failed."""
        self._asked: dict[str, ModelState] = {}
        """The state in which a model was last asked for."""
        self._touched_s: dict[str, float] = {}
        self.orders = ModelOrders(send)
        self._changed = asyncio.Event()
        self._is_started = False
        self._is_draining = False
        self._failure: StartupError | None = None
        self.gate = FrontGate(self._gates)

    # ---- what routes ask

    @property
    def table(self) -> ModelTable:
        """Every declared model as it is now; one that this worker cannot use counts as failed."""
        models = tuple(self._seen(state) for state in self._table.models)
        return msgspec.structs.replace(self._table, models=models)

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
        state = self._seen(self._table.get(self._table.default_alias))
        return "restarting" if state.phase is ModelPhase.FAILED else "ok"  # a request for it loads it

    @property
    def is_ready(self) -> bool:
        """New requests will be served: nothing is amiss, and memory suffices."""
        served = self._served.get(self._table.default_alias)
        return self.status == "ok" and (served is None or has_memory(served.serving))

    @property
    def is_started(self) -> bool:
        """Requests are served, whichever models are loaded now."""
        return self._is_started

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
        alias = self._find(name)
        served = self._served.get(alias)
        if served is None:
            return None
        self._touch(alias)
        return served.serving

    def seen(self, alias: str) -> Serving | None:
        """A declared model if it is loaded, for somebody who only looks on, which is no use of it."""
        served = self._served.get(alias)
        return None if served is None else served.serving

    async def serving_for(self, name: str | None, *, after: Serving | None = None) -> Serving:
        """The same, loading it first where needed; `after` is one that has been drained and is not given again.

        Raises ModelNotFound, Starting, ShuttingDown, ModelLoadFailed.
        """
        alias = self._find(name)
        was_loading = False
        while (served := self._served.get(alias)) is None or served.serving is after:
            self.check_started()
            self._check_draining()
            state = self._table.get(alias)
            is_called_off = was_loading and state.phase is ModelPhase.UNLOADED and state.error != ""
            if is_called_off or self._is_unusable(state) or self._has_just_failed(state):
                raise self._not_loaded(state)
            self._ask(state)
            was_loading = was_loading or state.phase is ModelPhase.LOADING
            await self._changed.wait()
        self._touch(alias)
        return served.serving

    async def changes(self, alias: str) -> AsyncIterator[ModelState]:
        """The state of a model, now and at every change. KeyError: unknown."""
        told: ModelState | None = None
        while True:
            changed = self._changed
            state = self._seen(self._table.get(alias))
            if state != told:
                told = state
                yield state
            await changed.wait()

    async def order(self, verb: OrderVerb, alias: str, timeout_s: float | None = None) -> None:
        """Have the supervisor load or unload a model, or make it the default, which is loaded first.

        Raises ModelNotFound, ShuttingDown, or ModelLoadFailed, also where the engine runs but this worker has no
        tokenizer for it.
        """
        self.catalog.find(alias)
        if verb != "unload":
            await self.orders.have_done("load", alias)
            await self._wait_until_open(alias)
        if verb != "load":
            await self.orders.have_done(verb, alias, timeout_s)

    async def _wait_until_open(self, alias: str) -> None:
        """Of a model that is ready; return also where it leaves again."""
        while alias not in self._served and (state := self._table.get(alias)).phase is ModelPhase.READY:
            if self._is_unusable(state):
                raise self._not_loaded(state)
            self._check_draining()
            await self._changed.wait()

    async def wait_until_loaded(self) -> None:
        """Until the default model was loaded once, or never will be."""
        while not self._is_started and self._failure is None:
            await self._changed.wait()

    # ---- what the supervisor says

    def update(self, table: ModelTable) -> None:
        """The table has changed."""
        before, self._table = self._table, table
        for state in table.models:
            if state.phase is not ModelPhase.FAILED:
                self._failed_s.pop(state.alias, None)
            elif state.alias not in self._failed_s or state != before.get(state.alias):
                self._failed_s[state.alias] = time.monotonic()
            self._follow(state)
        self._start_if_possible()
        self._tell()

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
        self.orders.close()
        self._tell()
        clients = [*(served.client for served in self._served.values()), *self._leaving.values()]
        await asyncio.gather(*(client.drain(timeout_s) for client in clients))
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
            self._leaving[leaving] = served.client
            leaving.add_done_callback(self._leaving.pop)
            served = None
        if is_ready and served is None and opening is None and not self._is_unusable(state):
            task = asyncio.create_task(self._open(state), name=f"open {alias}")
            self._opening[alias] = path, task
            task.add_done_callback(lambda task: self._note_opened(state, task))

    async def _open(self, state: ModelState) -> None:
        gate = OverloadGate()
        client = await EngineClient.connect(Path(state.socket_path), self._settings.server.engine_timeout_s)
        try:
            client.take_num_refused = gate.take_num_refused
            model = await asyncio.to_thread(load_served_model, client.info, self.catalog.get(state.alias))
        except BaseException:
            await client.drain(0.0)
            raise
        serving = make_serving(client, model, self._settings, gate)
        self._served[state.alias] = _Served(serving=serving, client=client, socket_path=state.socket_path)
        _log.info("model_ready", model=client.info.model_name, device=client.info.device)

    def _note_opened(self, state: ModelState, task: asyncio.Task[None]) -> None:
        """Whatever went wrong is told: requests wait for this model."""
        if self._opening.get(state.alias, ("", None))[1] is task:
            del self._opening[state.alias]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(state, error)
        self._start_if_possible()
        self._tell()

    def _give_up(self, state: ModelState, error: BaseException) -> None:
        """The engine runs, but nothing can be said to it in words."""
        failure: QuireError = ModelNotUsable(f"The model's files cannot be read: {type(error).__name__}: {error}.")
        failure = error if isinstance(error, QuireError) else failure
        _log.error("model_not_usable", model=state.alias, reason=failure.message)
        self._unusable[state.alias] = state.socket_path, failure
        if not self._is_started and state.alias == self._table.default_alias:
            self._failure = failure if isinstance(failure, StartupError) else StartupError(failure.message)
            self._hooks.on_failure(self._failure)

    def _start_if_possible(self) -> None:
        """The first time that the default model is there, or was before and is not loaded now: a request loads it."""
        if self._is_started or self._failure is not None:
            return
        state = self._table.get(self._table.default_alias)
        is_away = self._table.has_started and state.phase is not ModelPhase.READY
        if is_away or state.alias in self._served:
            self._is_started = True
            self._hooks.on_started()

    def _find(self, name: str | None) -> str:
        """The alias that a request means; raises ModelNotFound."""
        return self.catalog.find(self._table.default_alias if name is None else name).alias

    def _seen(self, state: ModelState) -> ModelState:
        """As this worker sees it."""
        if not self._is_unusable(state):
            return state
        error = self._unusable[state.alias][1].message
        return msgspec.structs.replace(state, phase=ModelPhase.FAILED, error=error)

    def _check_draining(self) -> None:
        if self._is_draining:
            raise ShuttingDown("the server is shutting down and loads no models", retry_after_s=5.0)

    def _has_just_failed(self, state: ModelState) -> bool:
        failed_s = self._failed_s.get(state.alias)
        return failed_s is not None and time.monotonic() - failed_s < FAILED_RETRY_AFTER_S

    def _ask(self, state: ModelState) -> None:
        """Want a model that is not on its way: a thousand requests that wait for it are one wish."""
        is_away = state.phase in (ModelPhase.UNLOADED, ModelPhase.DRAINING, ModelPhase.FAILED)
        if is_away and self._asked.get(state.alias) is not state:
            self._asked[state.alias] = state
            self._send(UseModel(state.alias))

    def _is_unusable(self, state: ModelState) -> bool:
        return self._unusable.get(state.alias, ("", None))[0] == state.socket_path != ""

    def _not_loaded(self, state: ModelState) -> QuireError:
        reason = self._seen(state).error
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
