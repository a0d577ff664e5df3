"""Health for people, probes and load balancers: numbers read at once; none of them waits for the engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from litestar import Request, Response, get

from contracts.engine import EngineInfo, EngineStats
from contracts.latencies import Histogram
from contracts.model_state import ModelPhase
from service.clocks import unix_ms
from service.engine_provider import ModelProvider, Serving, Status

_HEADERS = {"cache-control": "no-store"}

HealthStatus = Literal["healthy", "starting", "restarting", "draining", "dead"]


class QueueNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """The queue in the words of older services; of the default model. Times are means in seconds."""

    waiting_requests: int = 0
    active_requests: int = 0
    total_requests: int = 0
    total_completed: int = 0
    total_failed: int = 0
    current_batch_size: int = 0
    current_generation_step: int = 0
    """Steps since the start: a continuous batch has no first step of its own."""
    total_generation_steps: int = 0
    max_batch_size: int = 0
    average_wait_time: float | None = None
    average_generation_time: float | None = None
    mode: Literal["continuous"] = "continuous"


class DefaultGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """What the default model applies where a request to /v1 says nothing; null: no limit, no fixed seed."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    max_tokens: int | None
    seed: int | None


class AttentionNames(msgspec.Struct, frozen=True, kw_only=True):
    """How attention is computed: the server's choice, which no request changes."""

    available_implementations: tuple[str, ...] = ("paged",)
    default_implementation: str = "paged"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are served; the numbers are the default model's, null while it is not loaded."""

    status: HealthStatus
    ready: bool
    """New requests are served."""
    timestamp: str
    """ISO 8601."""
    uptime: float
    """Seconds since this worker began to answer."""
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

    # The same and more in the words of older services.
    model_id: str | None = None
    model_tag: str | None = None
    source: Literal["base", "sft"] | None = None
    """sft: it has a chat template."""
    step: int | None = None
    """Of its training, which nobody here knows."""
    device: str | None = None
    device_type: str | None = None
    num_workers: int
    """Engines that serve the default model."""
    default_generation: DefaultGeneration | None = None
    models_loaded: list[str]
    tokenizers_loaded: list[str]
    attention: AttentionNames = AttentionNames()
    queue: QueueNumbers | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe needs to know."""

    status: Status


class EnginePlace(msgspec.Struct, frozen=True, kw_only=True):
    """One engine."""

    gpu_id: int = 0
    device: str


class Stats(QueueNumbers, frozen=True, kw_only=True):
    """Every counter of the engine, and what it serves; from the engine's last report, at most half a second old."""

    model_id: str
    total_workers: int
    available_workers: int
    busy_workers: int
    """Engines whose batch is full."""
    workers: list[EnginePlace]

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
    health = health_of(request)
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
    return Response(all_stats(request), headers=_HEADERS)


def all_stats(request: Request[Any, Any, Any]) -> Stats:
    """What /stats says."""
    provider: ModelProvider = request.app.state["provider"]
    provider.check_started()
    engine = provider.serving.engine if provider.is_loaded else None
    stats = None if engine is None else engine.stats()
    info = None if engine is None else engine.info
    is_busy = stats is not None and info is not None and stats.num_running >= info.max_num_seqs
    return Stats(
        engine=stats,
        info=info,
        models={serving.model.names[0]: serving.engine.stats() for serving in provider.all_serving()},
        num_refused_unread=provider.gate.num_refused,
        model_id=provider.table.default_alias,
        total_workers=int(engine is not None),
        available_workers=int(engine is not None and not is_busy),
        busy_workers=int(is_busy),
        workers=[] if info is None else [EnginePlace(device=info.device)],
        **msgspec.structs.asdict(queue_numbers(stats, info)),
    )


def queue_numbers(stats: EngineStats | None, info: EngineInfo | None) -> QueueNumbers:
    """The same counters in other words; zeros while the default model is not loaded."""
    if stats is None or info is None:
        return QueueNumbers()
    return QueueNumbers(
        waiting_requests=stats.num_waiting,
        active_requests=stats.num_running,
        total_requests=stats.num_requests,
        total_completed=stats.num_finished,
        total_failed=stats.num_failed,
        current_batch_size=stats.num_running,
        current_generation_step=stats.num_steps,
        total_generation_steps=stats.num_steps,
        max_batch_size=info.max_num_seqs,
        average_wait_time=_mean(stats.latencies.queue_s),
        average_generation_time=_mean(stats.latencies.request_s),
    )


def _mean(histogram: Histogram) -> float | None:
    num_values = sum(histogram.counts)
    return histogram.sum / num_values if num_values else None


def health_of(request: Request[Any, Any, Any]) -> Health:
    """A snapshot."""
    provider: ModelProvider = request.app.state["provider"]
    started_s: float = request.app.state["started_s"]
    status = provider.status
    loaded = [serving.model.names[0] for serving in provider.all_serving()]
    health = Health(
        status="healthy" if status == "ok" else status,
        ready=provider.is_ready,
        timestamp=datetime.fromtimestamp(unix_ms() / 1000, UTC).isoformat(),
        uptime=round(time.monotonic() - started_s, 3),
        models={state.alias: state.phase for state in provider.table.models},
        num_workers=int(provider.is_loaded),
        models_loaded=loaded,
        tokenizers_loaded=loaded,
    )
    return _with_engine(health, provider.serving, provider.limits.default_seed) if provider.is_loaded else health


def _with_engine(health: Health, serving: Serving, default_seed: int | None) -> Health:
    """With what the engine of the default model says."""
    info, stats = serving.engine.info, serving.engine.stats()
    defaults = serving.model.info.sampling_defaults
    return msgspec.structs.replace(
        health,
        model=info.model_name,
        running=stats.num_running,
        waiting=stats.num_waiting,
        free_blocks=stats.num_free_blocks,
        num_blocks=stats.num_blocks,
        num_steps=stats.num_steps,
        mean_batch_size=round(stats.num_scheduled_seqs / stats.num_steps, 2) if stats.num_steps else None,
        is_draining=stats.is_draining,
        model_id=info.model_name,
        model_tag=info.model_name,
        source="base" if serving.model.template is None else "sft",
        device=info.device,
        device_type=info.device.partition(":")[0],
        default_generation=DefaultGeneration(
            temperature=defaults.temperature,
            top_k=defaults.top_k,
            top_p=defaults.top_p,
            min_p=defaults.min_p,
            max_tokens=serving.model.default_max_tokens,
            seed=default_seed,
        ),
        queue=queue_numbers(stats, info),
    )


HANDLERS = (check_health, check_liveness, check_readiness, read_stats)
