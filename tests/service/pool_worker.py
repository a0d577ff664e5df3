"""A worker's pool of models without a worker: the supervisor and the engines are in the test's hands."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import StartupError
from contracts.frames import SupervisorBound, UseModel
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.model_state import ModelPhase, ModelState, ModelTable
from contracts.settings import Settings
from service.model_pool import ModelPool, PoolHooks
from tests.fakes import fake_engine_info
from tests.service.scripted_engine import HELLO, ScriptedEngine, scripted_engine

PHASES = {phase.value: phase for phase in ModelPhase}
CATALOG = ModelCatalog(
    profiles=tuple(ModelProfile(alias=alias, model="/nowhere") for alias in ("first", "two", "org/three")),
    default_alias="first",
)


class Worker:
    """A pool, what it has said, and the table that it was told. Owner: the fixture."""

    def __init__(self, directory: Path, model_path: Path) -> None:
        self._directory = directory
        self._model_path = model_path
        self._stack = AsyncExitStack()
        self.settings = Settings()
        self.said: list[SupervisorBound] = []
        self.started: list[float] = []
        self.failures: list[StartupError] = []
        self.table = ModelTable(
            default_alias="first",
            models=tuple(ModelState(alias=alias) for alias in CATALOG.aliases),
            has_started=True,
        )

    async def start(self, **states: ModelState) -> ModelPool:
        """With a table of these states."""
        self._change(states)
        hooks = PoolHooks(on_started=lambda: self.started.append(time.monotonic()), on_failure=self.failures.append)
        self.pool = ModelPool(self.settings, CATALOG, self.table, self.hear, hooks)
        await self._stack.enter_async_context(self.pool.run())
        return self.pool

    def hear(self, message: SupervisorBound) -> None:
        """What the pool says to its supervisor."""
        self.said.append(message)

    async def engine(self, name: str, model_path: Path | None = None) -> ScriptedEngine:
        """One that listens; `state_of` says where."""
        engine = await self._stack.enter_async_context(scripted_engine(self._directory / name))
        info = fake_engine_info(model_path or self._model_path, model_name=name)
        engine.hello = msgspec.structs.replace(HELLO, info=info)
        return engine

    def tell(self, **states: ModelState) -> None:
        """The table has changed."""
        self._change(states)
        self.pool.update(self.table)

    def _change(self, states: dict[str, ModelState]) -> None:
        models = tuple(
            msgspec.structs.replace(states.get(old.alias, old), alias=old.alias) for old in self.table.models
        )
        self.table = msgspec.structs.replace(self.table, models=models)

    def wishes(self, alias: str) -> int:
        return self.said.count(UseModel(alias))

    async def close(self) -> None:
        await self._stack.aclose()


def state(phase: str, engine: ScriptedEngine | None = None, **facts: Any) -> ModelState:
    path = "" if engine is None else str(engine.path)
    return ModelState(alias="", phase=PHASES[phase], socket_path=path, **facts)
