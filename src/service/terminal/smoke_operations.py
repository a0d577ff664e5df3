"""Smoke checks of what an operator looks at: health, models, metrics, the live view, Jaeger's API and the pages."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from contracts.checkup import Finding
from contracts.jaeger import JaegerTraces, ServiceNames
from contracts.live import LiveView
from contracts.openai.models import ModelCard, ModelList
from contracts.presets import PresetList
from service.terminal.api_client import RequestRefused
from service.terminal.examination import found
from service.terminal.smoke_session import (
    INSUFFICIENT_SCOPE,
    NotTried,
    SmokeCheck,
    SmokeFailure,
    SmokeSession,
    demand,
    quoted,
)

PROBES = ("GET /health/live", "GET /healthz", "GET /health/ready", "GET /readyz")
METRICS_WAIT_S = 5.0
COUNTERS = ("quire_requests_total", "quire_generated_tokens_total", "quire_engine_steps_total")
PAGES = ("GET /", "GET /docs", "GET /redoc", "GET /openapi.json", "GET /assets/{name}")
_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)(?:\{[^}]*\})? (?P<value>[0-9.e+-]+)$", re.MULTILINE)
_ASSET = re.compile(rb"assets/([\w.-]+)")


class _Status(msgspec.Struct, frozen=True):
    status: str


def check_health(session: SmokeSession) -> Finding:
    """The server says that it serves."""
    for route in PROBES:
        session.call(route)
    status = session.call("GET /health").read(_Status).status
    demand(status == "healthy", f"GET /health says '{status}'.")
    return found("ok", f"Alive, ready and {status}.")


def check_models(session: SmokeSession) -> Finding:
    """List and cards agree; a model that is not there is 404."""
    cards = session.call("GET /v1/models").read(ModelList).data
    card = session.call("GET /v1/models/{model_id}", path=f"/v1/models/{quoted(session.model)}").read(ModelCard)
    demand(card.id in [one.id for one in cards], "GET /v1/models/{model_id} shows a model that the list does not have.")
    session.refused("GET /v1/models/{model_id}", None, path="/v1/models/quire-smoke-no-such-model", status=404)
    session.card = card
    names = ", ".join(one.id for one in cards)
    return found("ok", f"{len(cards)} listed: {names}. {card.id} is {card.state.value}.", num_models=len(cards))


def check_presets(session: SmokeSession) -> Finding:
    """The named sets of options."""
    presets = session.call("GET /v1/presets").read(PresetList).data
    return found("ok", f"{len(presets)} presets.", num_presets=len(presets))


def check_metrics(session: SmokeSession) -> Finding:
    """The counters move when something is generated."""
    before = _counters(session)
    stats = session.call("GET /stats")
    demand(bool(stats.content), "GET /stats is empty.")
    body = {"model": session.model, "prompt": "One, two,", "max_tokens": 4, "temperature": 0}
    session.call("POST /v1/completions", body)
    deadline_s = time.monotonic() + METRICS_WAIT_S
    while True:
        now = _counters(session)
        still = [name for name in COUNTERS if now[name] <= before[name]]
        if not still:
            break
        if time.monotonic() > deadline_s:
            raise SmokeFailure(f"GET /metrics does not move after a completion: {', '.join(still)}.")
        time.sleep(0.1)
    moved = int(now["quire_generated_tokens_total"] - before["quire_generated_tokens_total"])
    return found("ok", f"The counters moved, by {moved} generated tokens.", generated_tokens=moved)


def _counters(session: SmokeSession) -> dict[str, float]:
    """The sums over all models."""
    text = session.call("GET /metrics").content.decode("utf-8", "replace")
    sums = dict.fromkeys(COUNTERS, 0.0)
    known = set()
    for match in _SAMPLE.finditer(text):
        if match["name"] in sums:
            known.add(match["name"])
            sums[match["name"]] += float(match["value"])
    missing = [name for name in COUNTERS if name not in known]
    demand(not missing, f"GET /metrics has no {', '.join(missing)}.")
    return sums


def check_live(session: SmokeSession) -> Finding:
    """A look at the engine comes within a moment."""
    session.exercised.add("GET /v1/live")
    try:
        with session.client.stream("GET", f"/v1/live?model={quoted(session.model)}") as events:
            event = next(iter(events), None)
    except RequestRefused as error:
        if error.code == INSUFFICIENT_SCOPE:
            raise NotTried(error.message) from None
        raise
    demand(event is not None, "GET /v1/live ends without an event.")
    try:
        look = msgspec.json.decode(event.data if event is not None else "", type=LiveView)
    except msgspec.DecodeError as error:
        raise SmokeFailure(f"GET /v1/live sends an event in another shape than declared: {error}.") from None
    return found("ok", f"{len(look.running)} run, {look.num_free_blocks} of {look.num_blocks} KV blocks are free.")


def check_jaeger(session: SmokeSession) -> Finding:
    """The traces are where Jaeger's page and Grafana look for them."""
    if session.trace_id is None:
        raise NotTried("Nothing was generated that could be traced.")
    service = session.call("GET /api/v3/services").read(ServiceNames).services[0]
    name = quoted(service)
    session.call("GET /api/services")
    session.call("GET /api/services/{service}/operations", path=f"/api/services/{name}/operations")
    session.call("GET /api/operations", query=f"?service={name}")
    session.call("GET /api/v3/operations", query=f"?service={name}")
    session.call("GET /api/dependencies", query="?endTs=1700000000000&lookback=604800000")
    session.call("GET /api/traces", query=f"?service={name}&limit=1")
    session.call("GET /api/v3/trace-summaries", query=f"?query.serviceName={name}&query.searchDepth=1")
    session.call("GET /api/v3/traces", query=f"?query.serviceName={name}&query.searchDepth=1")
    session.call("GET /api/v3/traces/{trace_id}", path=f"/api/v3/traces/{session.trace_id}")
    trace = (
        session.call("GET /api/traces/{trace_id}", path=f"/api/traces/{session.trace_id}").read(JaegerTraces).data[0]
    )
    demand(trace.trace_id == session.trace_id, "GET /api/traces/{trace_id} shows another trace.")
    return found("ok", f"The last trace has {len(trace.spans)} spans.", num_spans=len(trace.spans))


def check_pages(session: SmokeSession) -> Finding:
    """The page, its assets, and the description of the API."""
    session.call("GET /")
    html = {"accept": "text/html"}
    names = {
        match.decode()
        for route in ("GET /", "GET /docs", "GET /redoc")
        for match in _ASSET.findall(session.call(route, headers=html).content)
    }
    demand(bool(names), "The pages name no assets.")
    for name in sorted(names):
        session.call("GET /assets/{name}", path=f"/assets/{name}")
    document: dict[str, Any] = session.call("GET /openapi.json").read(dict[str, Any])
    num_paths = len(document.get("paths", {}))
    demand(num_paths > 0, "GET /openapi.json describes no paths.")
    return found("ok", f"{len(names)} assets; {num_paths} paths are described.", num_paths=num_paths)


def check_orders(session: SmokeSession) -> Finding:
    """A model that is loaded can be ordered to be; nothing is unloaded and the default stays."""
    if session.card.state.value != "ready":
        raise NotTried(f"{session.model} is {session.card.state.value}: loading it might push another model out.")
    route = "POST /v1/models/{model_id}"
    card = session.call(route, {}, path=f"/v1/models/{quoted(session.model)}/load").read(ModelCard)
    demand(card.state.value == "ready", f"{route} leaves a loaded model {card.state.value}.")
    session.refused(route, {}, path="/v1/models/quire-smoke-no-such-model/load", status=404)
    return found("ok", f"An order to load {session.model}, which is loaded, changes nothing.")


def early_checks() -> tuple[SmokeCheck, ...]:
    """Before anything is generated."""
    models = ("GET /v1/models", "GET /v1/models/{model_id}")
    return (
        SmokeCheck(name="health", routes=(*PROBES, "GET /health"), run=check_health),
        SmokeCheck(name="models", routes=models, run=check_models),
        SmokeCheck(name="presets", routes=("GET /v1/presets",), run=check_presets),
    )


def late_checks() -> tuple[SmokeCheck, ...]:
    """Once there is something to look at."""
    metrics = ("GET /metrics", "GET /stats", "POST /v1/completions")
    v1 = ("services", "services/{service}/operations", "operations", "traces", "traces/{trace_id}", "dependencies")
    v3 = ("services", "operations", "trace-summaries", "traces", "traces/{trace_id}")
    jaeger = (*(f"GET /api/{name}" for name in v1), *(f"GET /api/v3/{name}" for name in v3))
    return (
        SmokeCheck(name="metrics", routes=metrics, run=check_metrics),
        SmokeCheck(name="live", routes=("GET /v1/live",), run=check_live),
        SmokeCheck(name="jaeger", routes=jaeger, run=check_jaeger),
        SmokeCheck(name="pages", routes=PAGES, run=check_pages),
        SmokeCheck(name="orders", routes=("POST /v1/models/{model_id}",), run=check_orders),
    )
