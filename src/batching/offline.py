"""The engine without a server: submit requests, iterate over their tokens, on the caller's own thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType

import structlog

from batching.engine import build_engine, snapshot
from batching.model_loader import ProgressCallback, no_progress
from batching.step_pipeline import StepPipeline
from contracts.engine import EngineInfo, EngineStats
from contracts.generation import GenerationDelta, GenerationRequest
from contracts.settings import EngineSettings

log = structlog.get_logger("quire.engine")


class OfflineEngine:
    """The same scheduler and runner as the server's, driven synchronously. Owner: one thread."""

    def __init__(self, settings: EngineSettings, on_progress: ProgressCallback = no_progress) -> None:
        self._core = build_engine(settings, on_progress)

    def __enter__(self) -> OfflineEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close: the memory goes with the object."""

    @property
    def info(self) -> EngineInfo:
        return self._core.info

    @property
    def stats(self) -> EngineStats:
        """Counters since it was made."""
        return snapshot(self._core.scheduler, is_alive=True, is_draining=False)

    @property
    def forward_name(self) -> str:
        """The forward pass that was chosen for the model."""
        return self._core.forward_name

    def generate(self, requests: list[GenerationRequest]) -> Iterator[GenerationDelta]:
        """Run all requests as one continuous batch and yield what each step brings.

        Raises what `submit` raises for the first request that cannot be admitted, before anything runs.
        """
        scheduler = self._core.scheduler
        for request in requests:
            scheduler.submit(request, time.monotonic())
        pipeline = StepPipeline(self._core.runner, log.error)
        while scheduler.has_work or scheduler.is_step_in_flight:
            yield from scheduler.expire(time.monotonic())
            output = pipeline.advance(scheduler.schedule(time.monotonic()))
            if output is not None:
                yield from scheduler.commit(output, time.monotonic())
