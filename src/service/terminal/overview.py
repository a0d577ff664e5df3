"""Asks a server for its models and requests, and brings them into the order of `quire ps`. Knows no terminal."""

from __future__ import annotations

from contracts.explanation import Explanation, ExplanationList
from contracts.openai.models import ModelList
from contracts.overview import Overview
from service.terminal.api_client import ApiClient

_ORDER = {"running": 0, "queued": 1}


def fetch_overview(client: ApiClient, limit: int) -> Overview:
    """At most `limit` requests, the newest. Raises ServerUnreachable or RequestRefused."""
    models = client.get_json("/v1/models", ModelList).data
    requests = client.get_json("/v1/requests", ExplanationList, {"limit": limit, "order": "newest"}).data
    return Overview(models=models, requests=sorted(requests, key=_place))


def _place(request: Explanation) -> tuple[int, int, float]:
    return (_ORDER.get(request.status, 2), request.queue_position or 0, -request.submitted)


def why_now(request: Explanation) -> str:
    """What one wants to know of it, in a few words: why it waits, else where most of its time went."""
    if request.status == "queued":
        return f"waits: {request.main_cause}" if request.main_cause else "waits"
    if request.status in ("failed", "cancelled") and request.finish_reason:
        return request.finish_reason
    return request.main_cause
