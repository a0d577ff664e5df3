"""Starts and ends what the routes serve from, the engine and the text half; knows nothing of HTTP.

Loading runs beside the event loop, so that /health answers from the first moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import structlog

from contracts.engine import Engine, EngineInfo
from contracts.errors import EngineDead, InvalidValue, ModelNotUsable, OverloadError, StartupError
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.model_state import ModelPhase, ModelState, ModelTable
from contracts.settings import EngineSettings, ServerSettings, Settings
from service.chat_template import ChatTemplate
from service.overload_gate import Gate, OverloadGate
from service.tokenizer import TextTokenizer
from service.translate import Limits, ServedModel

DRAIN_TIMEOUT_S = 30.0
STARTING_RETRY_AFTER_S = 2.0
STARTING = "The model is still being loaded; try again soon."

MAX_CONSECUTIVE_OOM = 3
"""Steps in a row that ran out of memory, from which on the server is not ready."""

Status = Literal["ok", "starting", "restarting", "draining", "dead"]
OrderVerb = Literal["load", "unload", "default"]
OnProgress = Callable[[str, float | None], None]
"""Stage, and how much of it is done (0 to 1) where that is known; called from the loading thread."""
StartEngine = Callable[[EngineSettings, OnProgress], Awaitable[Engine]]

_log = structlog.get_logger("service.engine")


class Starting(OverloadError):
    """The model is still being loaded."""

    code = "starting"


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What a request needs; exists only once everything is loaded."""

    engine: Engine
    model: ServedModel
    settings: ServerSettings
    gate: OverloadGate
    created: int
    """Unix time in seconds at which the model became ready."""


class ModelProvider(Protocol):
    """What routes know of the models: one engine in this process, or several behind a supervisor."""

    @property
    def settings(self) -> ServerSettings:
        """Of the HTTP side."""
        ...

    @property
    def limits(self) -> Limits:
        """Of every request, as the operator has set them."""
        ...

    @property
    def catalog(self) -> ModelCatalog:
        """What may be served."""
        ...

    @property
    def table(self) -> ModelTable:
        """What is loaded."""
        ...

    @property
    def gate(self) -> Gate:
        """Refuses requests unread while no engine has room."""
        ...

    @property
    def status(self) -> Status:
        """Of the server as a whole, which is that of its default model."""
        ...

    @property
    def is_ready(self) -> bool:
        """New requests will be served: nothing is amiss, and memory suffices."""
        ...

    @property
    def is_started(self) -> bool:
        """Requests are served, or were: there is something to drain."""
        ...

    @property
    def is_loaded(self) -> bool:
        """`serving` can be read."""
        ...

    @property
    def serving(self) -> Serving:
        """The default model, if it is loaded; else an error that says why not."""
        ...

    def check_started(self) -> None:
        """Raise Starting until the default model was loaded once, EngineDead where it never will be."""
        ...

    def all_serving(self) -> list[Serving]:
        """Every loaded model."""
        ...

    def served(self, name: str | None) -> Serving | None:
        """The model of this name (None: the default) if it is loaded; ModelNotFound where nobody has declared it.

        This counts as use, which keeps it loaded.
        """
        ...

    def seen(self, alias: str) -> Serving | None:
        """A declared model if it is loaded, for somebody who only looks on, which is no use of it."""
        ...

    async def serving_for(self, name: str | None, *, after: Serving | None = None) -> Serving:
        """The same, loading it first where needed; where `after` was drained, the one in its place, if any.

        Raises ModelNotFound, Starting, ShuttingDown, ModelLoadFailed.
        """
        ...

    def changes(self, alias: str) -> AsyncIterator[ModelState]:
        """The state of a model, now and at every change; for ever. KeyError: unknown."""
        ...

    async def order(self, verb: OrderVerb, alias: str, timeout_s: float | None = None) -> None:
        """Load or unload a model, or make it the default. Raises ModelNotFound, ModelLoadFailed, or InvalidValue where
        models cannot be switched."""
        ...

    def run(self) -> AbstractAsyncContextManager[None]:
        """The life of the application."""
        ...

    async def wait_until_loaded(self) -> None:
        """Return when the first loading has ended, well or not; only inside `run`."""
        ...

    def begin_drain(self) -> None:
        """Say to whoever asks that no new requests should come; those that do are still taken."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and let what runs end within the time."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StartupHooks:
    """What whoever starts the application is told: one of the first two once, in the event loop's thread."""

    on_ready: Callable[[EngineInfo], None] = lambda info: None
    on_failure: Callable[[StartupError], None] = lambda error: None
    on_progress: OnProgress = lambda stage, fraction: None


class EngineProvider:
    """Owner of the engine from the start of the application to its end; routes ask it for `serving`."""

    def __init__(
        self, settings: Settings, start_engine: StartEngine, hooks: StartupHooks, *, is_supervised: bool = False
    ) -> None:
        self._settings = settings
        self._is_supervised = is_supervised
        """Someone restarts an engine that has died."""
        self._is_draining = False
        self._start_engine = start_engine
        self._hooks = hooks
        self._engine: Engine | None = None
        self._serving: Serving | None = None
        self._failure: StartupError | None = None
        self.gate = OverloadGate()

    @property
    def limits(self) -> Limits:
        """Of every request, as the operator has set them."""
        return operator_limits(self._settings)

    @property
    def catalog(self) -> ModelCatalog:
        """The one model that there is."""
        name = self._engine.info.model_name if self._engine is not None else self._settings.engine.model
        return ModelCatalog(profiles=(ModelProfile(alias=name, model=self._settings.engine.model),), default_alias=name)

    @property
    def table(self) -> ModelTable:
        """It is loaded, or on its way."""
        phase = ModelPhase.READY if self._serving is not None else ModelPhase.LOADING
        phase = ModelPhase.FAILED if self._failure is not None else phase
        error = "" if self._failure is None else self._failure.message
        alias = self.catalog.default_alias
        return ModelTable(default_alias=alias, models=(ModelState(alias=alias, phase=phase, error=error),))

    @property
    def status(self) -> Status:
        """ok; starting; restarting: the engine has died and another is on its way; draining; or dead for good."""
        if self._failure is not None:
            return "dead"
        if self._is_draining:
            return "draining"
        if self._serving is None:
            return "starting"
        if self._serving.engine.stats().is_alive:
            return "ok"
        return "restarting" if self._is_supervised else "dead"

    @property
    def is_ready(self) -> bool:
        """New requests will be served: nothing is amiss, and memory suffices."""
        return self.status == "ok" and has_memory(self.serving)

    @property
    def settings(self) -> ServerSettings:
        """Of the HTTP side."""
        return self._settings.server

    def begin_drain(self) -> None:
        """Say to whoever asks that no new requests should come; those that do are still taken."""
        self._is_draining = True

    @property
    def is_started(self) -> bool:
        """The model was loaded."""
        return self._serving is not None

    @property
    def is_loaded(self) -> bool:
        """`serving` can be read."""
        return self._serving is not None

    @property
    def serving(self) -> Serving:
        """What to serve from, or Starting or EngineDead."""
        if self._serving is not None:
            return self._serving
        if self._failure is not None:
            raise EngineDead("The model could not be loaded; the server's log says why.")
        raise Starting(STARTING, retry_after_s=STARTING_RETRY_AFTER_S)

    def check_started(self) -> None:
        """Raise unless `serving` can be read."""
        _ = self.serving

    def all_serving(self) -> list[Serving]:
        """The one model, if it is loaded."""
        return [] if self._serving is None else [self._serving]

    def served(self, name: str | None) -> Serving | None:
        """The one model; ModelNotFound for another name."""
        serving = self.serving
        if name is not None and name not in serving.model.names:
            self.catalog.find(name)
        return serving

    def seen(self, alias: str) -> Serving | None:
        """The one model, if it is loaded."""
        return self._serving

    async def serving_for(self, name: str | None, *, after: Serving | None = None) -> Serving:
        """The same, whatever it is after: there is no other."""
        self.served(name)
        return self.serving

    async def changes(self, alias: str) -> AsyncIterator[ModelState]:
        """The state after loading: nothing else happens to the one model."""
        await self.wait_until_loaded()
        yield self.table.get(alias)

    async def order(self, verb: OrderVerb, alias: str, timeout_s: float | None = None) -> None:
        """The one model is loaded and the default; it cannot be unloaded."""
        self.catalog.find(alias)
        if verb == "unload":
            raise InvalidValue("The engine runs in this process, which serves no other model: it cannot be unloaded.")

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and let what runs end within the time."""
        if self._engine is not None:
            await self._engine.drain(timeout_s)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Begin loading at the start, drain at the end; `wait_until_loaded` says when requests are served."""
        self._loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
            if self._engine is not None:
                await self._engine.drain(DRAIN_TIMEOUT_S)

    async def wait_until_loaded(self) -> None:
        """Return when loading has ended, well or not; only inside `run`."""
        await self._loading

    async def _load(self) -> None:
        try:
            self._engine = await self._start_engine(self._settings.engine, self._hooks.on_progress)
            model = await asyncio.to_thread(load_served_model, self._engine.info)
        except StartupError as error:
            self._fail(error)
            return
        except Exception as error:  # the top handler of loading: nobody else would hear of it
            failure = ModelNotUsable(
                f"The model could not be loaded: {type(error).__name__}: {error}. The checkpoint may be damaged; "
                "`quire -v serve` shows where it failed."
            )
            failure.__cause__ = error
            self._fail(failure)
            return
        self._serving = make_serving(self._engine, model, self._settings, self.gate)
        _log.info("model_ready", model=self._engine.info.model_name, device=self._engine.info.device)
        self._hooks.on_ready(self._engine.info)

    def _fail(self, error: StartupError) -> None:
        self._failure = error
        _log.error("startup_failed", reason=error.message)
        self._hooks.on_failure(error)


def make_serving(engine: Engine, model: ServedModel, settings: Settings, gate: OverloadGate) -> Serving:
    """Put together what a request needs, now that the model is ready."""
    return Serving(engine=engine, model=model, settings=settings.server, gate=gate, created=int(time.time()))


def operator_limits(settings: Settings) -> Limits:
    """What the settings say for all requests."""
    return Limits(request_timeout_s=settings.server.request_timeout_s, default_seed=settings.engine.seed)


def has_memory(serving: Serving) -> bool:
    """Its engine's last steps have not run out of memory again and again."""
    return serving.engine.stats().num_consecutive_oom < MAX_CONSECUTIVE_OOM


def load_served_model(info: EngineInfo, profile: ModelProfile | None = None) -> ServedModel:
    """Read tokenizer and template from the model's directory, or as its profile wants; raises ModelNotUsable."""
    path = Path(info.model_path)
    tokenizer = TextTokenizer.load(path)
    if profile is None:
        template = ChatTemplate.load(path, tokenizer)
        return ServedModel(info=info, tokenizer=tokenizer, template=template, names=(info.model_name,))
    template = None if profile.is_chat is False else ChatTemplate.for_model(path, tokenizer, profile.template)
    if profile.is_chat and template is None:
        raise ModelNotUsable(
            f"The model '{profile.alias}' is declared a chat model, but {path} holds no chat template. Declare one, "
            'such as template = "default".'
        )
    return ServedModel(
        info=msgspec.structs.replace(info, sampling_defaults=profile.sampling.over(info.sampling_defaults)),
        tokenizer=tokenizer,
        template=template,
        names=(profile.alias,),
        default_max_tokens=profile.sampling.max_tokens,
    )


async def start_engine_in_process(settings: EngineSettings, on_progress: OnProgress) -> Engine:
    """Load the model and start its loop in this process; raises StartupError."""
    # Imported here only: `service` never imports torch when a module loads.
    from batching.async_engine import AsyncEngine

    return await AsyncEngine.start(settings, on_progress)
