"""Which models are loaded: starts an engine process for each, within the memory that there is, and drains it away.

Owner: the supervisor's event loop. Knows no workers: whoever owns the fleet is told of every change and passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from contracts.engine import EngineInfo
from contracts.errors import ModelNotUsable, NotEnoughMemory, StartupError
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
SETTLE_S, STAY_S = 5.0, 0.5
"""A model that is ready is not drained for another one before it was in use for STAY_S, or was not used for SETTLE_S:
else two models that take turns would each go before the requests that waited for it are served."""
ROOM_POLL_S = 0.05
"""How often a load looks again while all that could go for it must stay."""
CALLED_OFF = "It was unloaded while it was being loaded. The next request loads it."

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
        self.stays_until_s = 0.0
        """Not drained for another model before."""

    @property
    def is_starting(self) -> bool:
        """Its engine is on its way for the first time."""
        return self.keeper is not None and self.state.phase is ModelPhase.LOADING

    def note_use(self) -> None:
        """A request has reached it."""
        self.stays_until_s = min(self.stays_until_s, time.monotonic() + STAY_S)


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
        self._has_started = False
        self._is_closed = False
        self.engine_module = "service.engine_process"

    @property
    def table(self) -> ModelTable:
        """Every model as it is now."""
        states = tuple(berth.state for berth in self._berths.values())
        return ModelTable(default_alias=self._default_alias, models=states, has_started=self._has_started)

    @property
    def keepers(self) -> list[ProcessKeeper]:
        """Of the engines that run or are on their way."""
        return [berth.keeper for berth in self._berths.values() if berth.keeper is not None]

    @property
    def running(self) -> list[asyncio.Task[None]]:
        """What ends when the engines have ended."""
        return [berth.running for berth in self._berths.values() if berth.running is not None]

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
        if phase is ModelPhase.READY:
            berth.note_use()
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
        if berth.loading is None and not berth.is_starting:
            self._begin_loading(berth)
        loading = berth.loading or berth.ready
        if loading is None:
            raise StartupError(CALLED_OFF)
        await asyncio.wait({loading})  # whoever leaves does not take the load with him
        error = StartupError(CALLED_OFF) if loading.cancelled() else loading.exception()
        if error is not None:
            raise _as_startup_error(error)

    async def unload(self, alias: str, timeout_s: float = NO_LIMIT_S) -> None:
        """Let what runs on the model end, at most so long, and free its memory; a load is called off.

        A second one may shorten the time of the first. KeyError: unknown.
        """
        berth = self._berths[alias]
        if berth.loading is not None and not berth.is_starting:
            berth.loading.cancel()
            await asyncio.wait({berth.loading})
            if berth.keeper is None:
                self._put(berth, phase=ModelPhase.UNLOADED, stage="", fraction=None, error=CALLED_OFF)
        elif berth.state.phase is ModelPhase.FAILED:
            self._put(berth, phase=ModelPhase.UNLOADED, error="")
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
        """Whatever went wrong is told: requests wait for this model."""
        berth.loading = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        failure = _as_startup_error(error)
        log.error("model_load_failed", model=berth.profile.alias, reason=failure.message)
        if berth.state.phase is ModelPhase.LOADING and berth.keeper is None:
            self._put(berth, phase=ModelPhase.FAILED, stage="", fraction=None, error=failure.message)

    async def _load(self, berth: _Berth) -> None:
        await self._drain(berth, NO_LIMIT_S)  # what is left of the last time
        self._put(berth, phase=ModelPhase.LOADING, stage="waiting for its turn", fraction=None, error="")
        async with self._deciding:
            self._put(berth, stage="making room")
            self._start_engine(berth, await self._make_room(berth))
        if berth.ready is not None:
            await asyncio.wait({berth.ready})
            berth.ready.result()

    def _start_engine(self, berth: _Berth, need: MemoryNeed | None) -> None:
        self._num_engines += 1
        alias = berth.profile.alias
        socket_path = str(self._directory / socket_name(self._num_engines))
        engine = berth.profile.engine_settings(self._settings.engine)
        settings = Settings(engine=engine, server=self._settings.server.without_secrets())
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
        _remove_socket(berth.state.socket_path)
        is_called_off = failure is None and berth.ready is not None and not berth.ready.done()
        self._put(
            berth,
            phase=ModelPhase.UNLOADED if failure is None else ModelPhase.FAILED,
            stage="",
            fraction=None,
            error=failure.message if failure is not None else CALLED_OFF if is_called_off else "",
            socket_path="",
            memory_bytes=None,
            load_s=None,
        )
        if berth.ready is not None and not berth.ready.done():
            berth.ready.set_exception(failure or StartupError(CALLED_OFF))
            berth.ready.exception()  # whoever waits has it; nobody need
        is_the_server = berth.profile.alias == self._launch_alias == self._default_alias
        if failure is not None and is_the_server and (keeper.has_been_ready or self._num_engines == 1):
            self._hooks.on_fatal(failure)

    def _check_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._hooks.on_fatal(StartupError(f"The keeper of an engine failed: {error!r}"))

    async def _drain(self, berth: _Berth, timeout_s: float) -> None:
        keeper, running = berth.keeper, berth.running
        if keeper is None or running is None:
            return
        if berth.state.phase is ModelPhase.READY:  # one that is not ready yet has nothing to end
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
        for alias in await self._find_victims(berth, need, budget_bytes):
            log.info("model_evicted", model=alias, for_model=berth.profile.alias)
            await self._drain(self._berths[alias], NO_LIMIT_S)
        return need

    async def _find_victims(self, berth: _Berth, need: MemoryNeed | None, budget_bytes: int) -> list[str]:
        """What goes for a model, as soon as it may; raises NotEnoughMemory where it does not fit even alone."""
        need_bytes = 0 if need is None else need.total_bytes
        if need is not None and need_bytes > budget_bytes:
            raise NotEnoughMemory(
                f"The model '{berth.profile.alias}' {need.explain(budget_bytes)}, even with all others unloaded. Give "
                "it a smaller kv_cache_memory, or the server a larger --max-loaded-memory."
            )
        while True:
            others = [other for other in self._berths.values() if other is not berth and other.keeper is not None]
            victims = choose_victims(
                [self._tenancy(other) for other in others],
                need_bytes=need_bytes,
                budget_bytes=budget_bytes,
                max_models=self._settings.catalog.max_loaded_models,
            )
            if victims is not None:
                return victims
            await asyncio.sleep(ROOM_POLL_S)

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
            with contextlib.suppress(ModelNotUsable):  # it runs, whatever its files look like by now
                need = await asyncio.to_thread(self._estimate, berth.profile)
                self._put(berth, memory_bytes=None if need is None else need.total_bytes)

    def _tenancy(self, berth: _Berth) -> Tenancy:
        return Tenancy(
            alias=berth.profile.alias,
            memory_bytes=berth.state.memory_bytes or 0,
            is_default=berth.profile.alias == self._default_alias,
            must_stay=berth.state.phase is ModelPhase.LOADING or time.monotonic() < berth.stays_until_s,
            is_busy=berth.num_requests > 0,
            last_used_s=berth.last_used_s,
        )

    # ---- what engines say

    def _handle(self, berth: _Berth, keeper: ProcessKeeper, message: SupervisorBound) -> None:
        if isinstance(message, Alive):
            berth.num_requests = message.num_requests
            if message.num_requests:
                berth.note_use()
        elif isinstance(message, Progress):
            self._report(berth, keeper, message)
        elif isinstance(message, Failed):
            keeper.note_refusal(message.error.to_error())
        elif isinstance(message, EngineReady):
            keeper.note_ready()
            self._has_started = True
            if berth.state.phase is ModelPhase.LOADING:
                berth.stays_until_s = time.monotonic() + SETTLE_S
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


def _as_startup_error(error: BaseException) -> StartupError:
    """What a load ended with, in words for whoever waits for it."""
    if isinstance(error, StartupError):
        return error
    return StartupError(f"The model could not be loaded: {type(error).__name__}: {error}.")


def _remove_socket(path: str) -> None:
    """An engine that was killed leaves it behind."""
    with contextlib.suppress(OSError):
        Path(path).unlink(missing_ok=True)
