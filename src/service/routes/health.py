"""Health for people, probes and load balancers: numbers read at once; none of them waits for the engine."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from contracts.engine import EngineInfo, EngineStats
from contracts.model_state import ModelPhase
from service.engine_provider import ModelProvider, Status

_HEADERS = {"cache-control": "no-store"}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are served; the numbers are the default model's, null while it is not loaded."""

    status: Status
    model: str | None = None
    running: int | None = None
    waiting: int | None = None
    free_blocks: int | None = None
    num_blocks: int | None = None
    num_steps: int | None = None
    mean_batch_size: float | None = None
    """Sequences in a step, on average since the start."""
    is_draining: bool | None = None
    models: dict[str, ModelPhase] = {}
    """Every declared model, by name."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe needs to know."""

    status: Status


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Every counter of the engine, and what it serves; from the engine's last report, at most half a second old."""

    engine: EngineStats | None
    """Of the default model; null while it is not loaded, as is `info`."""
    info: EngineInfo | None
    models: dict[str, EngineStats]
    """Of every loaded model, by name."""
    num_refused_unread: int
    """Requests that this worker refused at the door, because the engine had just said that it has no room."""


@get("/health", sync_to_thread=False)
def check_health(request: Request[Any, Any, Any]) -> Response[Health]:
    """200 while starting, serving, restarting or draining; 503 once the engine is dead for good."""
    provider: ModelProvider = request.app.state["provider"]
    health = read_health(provider)
    return Response(health, status_code=503 if health.status == "dead" else 200, headers=_HEADERS)


@get(["/health/live", "/healthz"], sync_to_thread=False)
def check_liveness(request: Request[Any, Any, Any]) -> Response[Probe]:
    """200 as long as this process and its event loop work; a dead engine is the supervisor's business."""
    provider: ModelProvider = request.app.state["provider"]
    status = provider.status
    return Response(Probe(status=status), status_code=503 if status == "dead" else 200, headers=_HEADERS)


@get(["/health/ready", "/readyz"], sync_to_thread=False)
def check_readiness(request: Request[Any, Any, Any]) -> Response[Probe]:
    """200 only while new requests are served: the model is loaded, the engine answers, nothing drains."""
    provider: ModelProvider = request.app.state["provider"]
    return Response(Probe(status=provider.status), status_code=200 if provider.is_ready else 503, headers=_HEADERS)


@get("/stats", sync_to_thread=False)
def read_stats(request: Request[Any, Any, Any]) -> Response[Stats]:
    """The engines' counters."""
    provider: ModelProvider = request.app.state["provider"]
    provider.check_started()
    engine = provider.serving.engine if provider.is_loaded else None
    stats = Stats(
        engine=None if engine is None else engine.stats(),
        info=None if engine is None else engine.info,
        models={serving.model.names[0]: serving.engine.stats() for serving in provider.all_serving()},
        num_refused_unread=provider.gate.num_refused,
    )
    return Response(stats, headers=_HEADERS)


def read_health(provider: ModelProvider) -> Health:
    """A snapshot."""
    status = provider.status
    models = {state.alias: state.phase for state in provider.table.models}
    if not provider.is_loaded:
        return Health(status=status, models=models)
    engine = provider.serving.engine
    stats = engine.stats()
    return Health(
        status=status,
        model=engine.info.model_name,
        running=stats.num_running,
        waiting=stats.num_waiting,
        free_blocks=stats.num_free_blocks,
        num_blocks=stats.num_blocks,
        num_steps=stats.num_steps,
        mean_batch_size=round(stats.num_scheduled_seqs / stats.num_steps, 2) if stats.num_steps else None,
        is_draining=stats.is_draining,
        models=models,
    )


HANDLERS = (check_health, check_liveness, check_readiness, read_stats)
