"""Which models are loaded: starts an engine process for each, within the memory that there is, and drains it away.

Owner: the supervisor's event loop. Knows no workers: whoever owns the fleet is told of every change and passes it on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from contracts.engine import EngineInfo
from contracts.errors import NotEnoughMemory, StartupError
from contracts.frames import Alive, Drain, EngineReady, Failed, LaunchEngine, Progress, SupervisorBound
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.model_state import ModelPhase, ModelState, ModelTable
from contracts.settings import Settings
from service.model_memory import MemoryNeed, device_memory, estimate_memory, memory_budget
from service.model_room import Tenancy, choose_victims
from service.private_directory import socket_name
from service.process_keeper import ProcessKeeper

NO_LIMIT_S = 30 * 86400.0
"""How long a model may drain that nobody hurries: what runs on it ends by itself."""
RETRY_FAILED_S = 10.0
"""After a failed load, until a request makes the server try again; an order does so at once."""
REPORT_EVERY_S = 0.2
"""Between two reports of a fraction within one stage."""

log = structlog.get_logger("service.models")


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetHooks:
    """What the owner of a fleet is told, in the event loop's thread."""

    on_change: Callable[[], None] = lambda: None
    """`table` says something new."""
    on_ready: Callable[[str, EngineInfo], None] = lambda alias, info: None
    on_progress: Callable[[str, float | None], None] = lambda stage, fraction: None
    """Of the model that is loaded at the start."""
    on_fatal: Callable[[StartupError], None] = lambda error: None
    """That one cannot be started, or ends again and again."""


class _Berth:
    """A declared model and, while it is loaded, its engine process. Owner: the fleet."""

    def __init__(self, profile: ModelProfile) -> None:
        self.profile = profile
        self.state = ModelState(alias=profile.alias)
        self.keeper: ProcessKeeper | None = None
        self.running: asyncio.Task[None] | None = None
        self.loading: asyncio.Task[None] | None = None
        self.ready: asyncio.Future[None] | None = None
        self.num_requests = 0
        """Waiting and running in its engine, as it said last."""
        self.last_used_s = 0.0
        self.changed_s = 0.0
        """When its state was last replaced."""


class ModelFleet:
    """Life cycle: `launch` the first model -> use, load, unload, set_default -> the owner drains the keepers.

    Loads are decided one after the other, so that two never count on the same memory.
    """

    def __init__(self, settings: Settings, catalog: ModelCatalog, directory: Path, hooks: FleetHooks) -> None:
        self._settings = settings
        self._directory = directory
        self._hooks = hooks
        self._berths = {profile.alias: _Berth(profile) for profile in catalog.profiles}
        self._default_alias = self._launch_alias = catalog.default_alias
        self._num_engines = 0
        self._deciding = asyncio.Lock()
        self._budget: asyncio.Task[int] | None = None
        self._is_closed = False
        self.engine_module = "service.engine_process"

    @property
    def table(self) -> ModelTable:
        """Every model as it is now."""
        states = tuple(berth.state for berth in self._berths.values())
        return ModelTable(default_alias=self._default_alias, models=states)

    @property
    def keepers(self) -> list[ProcessKeeper]:
        """Of the engines that run or are on their way."""
        return [berth.keeper for berth in self._berths.values() if berth.keeper is not None]

    @property
    def running(self) -> list[asyncio.Task[None]]:
        """What ends when the engines have ended."""
        return [berth.running for berth in self._berths.values() if berth.running is not None]

    @property
    def launch_keeper(self) -> ProcessKeeper:
        """Of the model that the server starts with; only after `launch`."""
        keeper = self._berths[self._launch_alias].keeper
        if keeper is None:
            raise RuntimeError("the fleet was not launched")
        return keeper

    def launch(self) -> None:
        """Start the engine of the default model; its end, or failure, is the server's."""
        self._budget = asyncio.create_task(asyncio.to_thread(self._measure_budget))
        berth = self._berths[self._launch_alias]
        self._start_engine(berth, None)

    def use(self, alias: str) -> None:
        """A request wants the model now: load it if it is not there; whoever waits is told by the table."""
        berth = self._berths.get(alias)
        if berth is None:
            return
        now_s = berth.last_used_s = time.monotonic()
        phase = berth.state.phase
        is_wanted = phase in (ModelPhase.UNLOADED, ModelPhase.DRAINING) or (
            phase is ModelPhase.FAILED and now_s - berth.changed_s > RETRY_FAILED_S
        )
        if is_wanted and berth.loading is None and not self._is_closed:
            self._begin_loading(berth)

    async def load(self, alias: str) -> None:
        """Return when the model is ready; raises StartupError with the reason where it cannot be. KeyError: unknown."""
        berth = self._berths[alias]
        berth.last_used_s = time.monotonic()
        if berth.state.phase is ModelPhase.READY:
            return
        if self._is_closed:
            raise StartupError("The server is stopping and loads nothing any more.")
        if berth.loading is None and berth.state.phase is not ModelPhase.LOADING:
            self._begin_loading(berth)
        if berth.loading is not None:
            await asyncio.shield(berth.loading)
        elif berth.ready is not None:
            await asyncio.shield(berth.ready)

    async def unload(self, alias: str, timeout_s: float = NO_LIMIT_S) -> None:
        """Let what runs on the model end, at most so long, and free its memory. KeyError: unknown."""
        berth = self._berths[alias]
        if berth.loading is not None:
            await asyncio.gather(berth.loading, return_exceptions=True)
        await self._drain(berth, timeout_s)

    def close(self) -> None:
        """Load nothing any more; the engines that run are the owner's to drain or kill."""
        self._is_closed = True
        for berth in self._berths.values():
            if berth.loading is not None:
                berth.loading.cancel()

    async def set_default(self, alias: str) -> None:
        """Load the model and let requests that name none go to it; raises as `load`, and nothing has changed then."""
        await self.load(alias)
        self._default_alias = alias
        self._hooks.on_change()

    # ---- one model

    def _begin_loading(self, berth: _Berth) -> None:
        berth.loading = asyncio.create_task(self._load(berth), name=f"load {berth.profile.alias}")
        berth.loading.add_done_callback(lambda task: self._note_loaded(berth, task))

    def _note_loaded(self, berth: _Berth, task: asyncio.Task[None]) -> None:
        berth.loading = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("model_load_failed", model=berth.profile.alias, reason=str(error))

    async def _load(self, berth: _Berth) -> None:
        try:
            async with self._deciding:
                if berth.state.phase is ModelPhase.DRAINING:
                    await self._drain(berth, NO_LIMIT_S)
                self._put(berth, phase=ModelPhase.LOADING, stage="making room", fraction=None, error="")
                need = await self._make_room(berth)
                self._start_engine(berth, need)
        except StartupError as error:
            self._put(berth, phase=ModelPhase.FAILED, stage="", error=error.message)
            raise
        if berth.ready is not None:
            await berth.ready

    def _start_engine(self, berth: _Berth, need: MemoryNeed | None) -> None:
        self._num_engines += 1
        alias = berth.profile.alias
        socket_path = str(self._directory / socket_name(self._num_engines))
        engine = berth.profile.engine_settings(self._settings.engine)
        settings = msgspec.structs.replace(self._settings, engine=engine)
        berth.ready = asyncio.get_running_loop().create_future()
        berth.num_requests = 0
        self._put(
            berth,
            phase=ModelPhase.LOADING,
            stage="starting the process",
            fraction=None,
            error="",
            socket_path=socket_path,
            memory_bytes=None if need is None else need.total_bytes,
            load_s=None,
        )
        berth.keeper = ProcessKeeper(
            "engine" if alias == self._launch_alias else f"engine of {alias}",
            self.engine_module,
            lambda: LaunchEngine(settings, socket_path, time.monotonic()),
            self._settings.server.engine_timeout_s,
            lambda keeper, message: self._handle(berth, keeper, message),
        )
        berth.running = asyncio.create_task(self._run(berth, berth.keeper), name=f"engine of {alias}")
        berth.running.add_done_callback(self._check_ended)

    async def _run(self, berth: _Berth, keeper: ProcessKeeper) -> None:
        """Keep the engine running until it is retired or cannot be."""
        failure: StartupError | None = None
        try:
            await keeper.run()
        except StartupError as error:
            failure = error
        berth.keeper = None
        is_launching = berth.profile.alias == self._launch_alias
        if failure is None:
            self._put(berth, phase=ModelPhase.UNLOADED, socket_path="", memory_bytes=None, stage="", load_s=None)
        else:
            self._put(
                berth, phase=ModelPhase.FAILED, socket_path="", memory_bytes=None, stage="", error=failure.message
            )
        if berth.ready is not None and not berth.ready.done():
            berth.ready.set_exception(failure or StartupError("The model was unloaded while it was being loaded."))
            berth.ready.exception()  # whoever waits has it; nobody need
        if failure is not None and is_launching and (keeper.has_been_ready or self._num_engines == 1):
            self._hooks.on_fatal(failure)

    def _check_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._hooks.on_fatal(StartupError(f"The keeper of an engine failed: {error!r}"))

    async def _drain(self, berth: _Berth, timeout_s: float) -> None:
        keeper, running = berth.keeper, berth.running
        if keeper is None or running is None:
            return
        if berth.state.phase is not ModelPhase.DRAINING:
            self._put(berth, phase=ModelPhase.DRAINING, stage="", fraction=None)
            log.info("model_draining", model=berth.profile.alias)
        keeper.drain(Drain(0.0, timeout_s))
        await asyncio.wait({running})

    # ---- memory

    def _measure_budget(self) -> int:
        return memory_budget(self._settings.catalog, device_memory(self._settings.engine))

    async def _make_room(self, berth: _Berth) -> MemoryNeed | None:
        """Drain others until the model fits; raises NotEnoughMemory before anything is drained where it never will."""
        need = await asyncio.to_thread(self._estimate, berth.profile)
        budget_bytes = await self._budget_bytes()
        await self._account_for_launch()
        others = [other for other in self._berths.values() if other is not berth and other.keeper is not None]
        victims = choose_victims(
            [self._tenancy(other) for other in others],
            need_bytes=0 if need is None else need.total_bytes,
            budget_bytes=budget_bytes,
            max_models=self._settings.catalog.max_loaded_models,
        )
        if victims is None:
            text = "is too large" if need is None else need.explain(budget_bytes)
            raise NotEnoughMemory(
                f"The model '{berth.profile.alias}' {text}, even with all others unloaded. Give it a smaller "
                "kv_cache_memory, or the server a larger --max-loaded-memory."
            )
        for alias in victims:
            log.info("model_evicted", model=alias, for_model=berth.profile.alias)
            await self._drain(self._berths[alias], NO_LIMIT_S)
        return need

    def _estimate(self, profile: ModelProfile) -> MemoryNeed | None:
        return estimate_memory(profile, self._settings.engine, device_memory(self._settings.engine))

    async def _budget_bytes(self) -> int:
        if self._budget is None:
            self._budget = asyncio.create_task(asyncio.to_thread(self._measure_budget))
        return await asyncio.shield(self._budget)

    async def _account_for_launch(self) -> None:
        """The model of the start was loaded without asking what it needs; from the second one on it counts."""
        berth = self._berths[self._launch_alias]
        if berth.keeper is not None and berth.state.memory_bytes is None:
            need = await asyncio.to_thread(self._estimate, berth.profile)
            self._put(berth, memory_bytes=None if need is None else need.total_bytes)

    def _tenancy(self, berth: _Berth) -> Tenancy:
        return Tenancy(
            alias=berth.profile.alias,
            memory_bytes=berth.state.memory_bytes or 0,
            is_default=berth.profile.alias == self._default_alias,
            is_loading=berth.state.phase is ModelPhase.LOADING,
            is_busy=berth.num_requests > 0,
            last_used_s=berth.last_used_s,
        )

    # ---- what engines say

    def _handle(self, berth: _Berth, keeper: ProcessKeeper, message: SupervisorBound) -> None:
        if isinstance(message, Alive):
            berth.num_requests = message.num_requests
        elif isinstance(message, Progress):
            self._report(berth, keeper, message)
        elif isinstance(message, Failed):
            keeper.note_refusal(message.error.to_error())
        elif isinstance(message, EngineReady):
            keeper.note_ready()
            if berth.state.phase is ModelPhase.LOADING:
                load_s = None if keeper.child is None else round(keeper.child.lived_s, 3)
                self._put(berth, phase=ModelPhase.READY, stage="", fraction=None, load_s=load_s)
            if berth.ready is not None and not berth.ready.done():
                berth.ready.set_result(None)
            self._hooks.on_ready(berth.profile.alias, message.info)

    def _report(self, berth: _Berth, keeper: ProcessKeeper, progress: Progress) -> None:
        if keeper.has_been_ready:
            return
        is_new = progress.stage != berth.state.stage
        if berth.profile.alias == self._launch_alias and self._num_engines == 1:
            self._hooks.on_progress(progress.stage, progress.fraction)
        elif is_new:
            log.info("model_loading", model=berth.profile.alias, stage=progress.stage)
        if is_new or time.monotonic() - berth.changed_s > REPORT_EVERY_S:
            self._put(berth, stage=progress.stage, fraction=progress.fraction)

    def _put(self, berth: _Berth, **changes: object) -> None:
        """Replace the state and say so."""
        berth.state = msgspec.structs.replace(berth.state, **changes)
        berth.changed_s = time.monotonic()
        self._hooks.on_change()
