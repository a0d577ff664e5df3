"""GET /health: a few numbers read at once; never waits for the engine."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import Request, Response, get

from service.engine_provider import EngineProvider


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are served; the numbers are null while the model loads."""

    status: Literal["ok", "starting", "dead"]
    model: str | None = None
    running: int | None = None
    waiting: int | None = None
    free_blocks: int | None = None
    num_blocks: int | None = None
    num_steps: int | None = None
    mean_batch_size: float | None = None
    """Sequences in a step, on average since the start."""
    is_draining: bool | None = None


@get("/health", sync_to_thread=False)
def check_health(request: Request[Any, Any, Any]) -> Response[Health]:
    """200 while starting and serving, 503 once the engine is dead."""
    provider: EngineProvider = request.app.state["provider"]
    health = read_health(provider)
    return Response(health, status_code=503 if health.status == "dead" else 200, headers={"cache-control": "no-store"})


def read_health(provider: EngineProvider) -> Health:
    """A snapshot."""
    status = provider.status
    if not provider.is_loaded:
        return Health(status=status)
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
    )


HANDLERS = (check_health,)
