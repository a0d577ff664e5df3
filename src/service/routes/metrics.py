"""GET /metrics, for Prometheus."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from service.engine_provider import ModelProvider
from service.metrics import EngineMetrics


@get("/metrics", sync_to_thread=False)
def read_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The engine's last report, at most half a second old; `quire_engine_up 0` while there is none."""
    provider: ModelProvider = request.app.state["provider"]
    engines = [(serving.engine.info, serving.engine.stats()) for serving in provider.all_serving()]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        EngineMetrics(engines, provider.table, is_vllm_compatible=provider.settings.metrics_compat == "vllm")
    )
    headers = {"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"}
    return Response(generate_latest(registry), headers=headers)


HANDLERS = (read_metrics,)
