"""GET /metrics, for Prometheus."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from service.engine_provider import EngineProvider
from service.metrics import EngineMetrics


@get("/metrics", sync_to_thread=False)
def read_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The engine's last report, at most half a second old; `quire_engine_up 0` while there is none."""
    provider: EngineProvider = request.app.state["provider"]
    engine = provider.serving.engine if provider.is_loaded else None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        EngineMetrics(
            None if engine is None else engine.info,
            None if engine is None else engine.stats(),
            is_vllm_compatible=provider.settings.metrics_compat == "vllm",
        )
    )
    headers = {"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"}
    return Response(generate_latest(registry), headers=headers)


HANDLERS = (read_metrics,)
