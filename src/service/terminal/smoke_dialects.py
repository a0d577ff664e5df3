"""Smoke checks of the dialects of older services, each skipped where the server does not speak it."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlencode

import msgspec

from contracts.checkup import Finding
from service.terminal.examination import found
from service.terminal.smoke_session import NotTried, SmokeCheck, SmokeSession, demand, quoted

FORM = {"content-type": "application/x-www-form-urlencoded"}
MESSAGES = [{"role": "user", "content": "Hello, what are you?"}]
API = "/api/v1"
CHAT = f"{API}/chat"


def _need_chat(session: SmokeSession) -> None:
    """The dialects speak to the default model."""
    if session.card.kind == "base":
        raise NotTried(f"{session.model} is a base model: it has no chat template.")


def check_picollm(session: SmokeSession) -> Finding:
    """Streams unless told otherwise."""
    _need_chat(session)
    body = {"messages": MESSAGES, "max_tokens": 6, "temperature": 0}
    streamed = session.call("POST /chat/completions", body).chunks(dict[str, Any])
    whole = session.call("POST /chat/completions", {**body, "stream": False}).read(dict[str, Any])
    text = "".join(chunk.get("token") or "" for chunk in streamed)
    demand(whole["choices"][0]["message"]["content"] == text, "POST /chat/completions streams another text.")
    short = session.call("POST /chat", {"messages": MESSAGES, "max_new_tokens": 4}).read(dict[str, Any])
    demand(isinstance(short.get("reply"), str), "POST /chat answers without a reply.")
    for route in ("GET /metadata", "GET /checkpoints", "GET /logo.svg"):
        session.call(route)
    return found("ok", "Streamed and whole answers are the same; metadata, checkpoints and logo are there.")


def check_ruvon(session: SmokeSession) -> Finding:
    """Completions without /v1, and the queue."""
    body = {"prompt": "Hello", "max_tokens": 4}
    reply = session.call("POST /completions", body).read(dict[str, Any])
    session.call("POST /completions", {**body, "stream": True}).events()
    for route in ("GET /queue", "GET /queue/recent"):
        session.call(route)
    session.call("GET /requests/{any_id}", path=f"/requests/{quoted(str(reply['id']))}")
    return found("ok", "Completed, streamed, and looked up in the queue.")


def check_fastapi_llm(session: SmokeSession) -> Finding:
    """The form, the echo and the example."""
    _need_chat(session)
    echoed = session.call("POST /prompt_data", {"prompt": "echo"}).read(dict[str, Any])
    demand(echoed.get("prompt") == "echo", "POST /prompt_data echoes something else.")
    session.call("GET /stream-example").events()
    form = msgspec.Raw(urlencode({"prompt": "Hello"}).encode())
    events = session.call("POST /completion", form, headers=FORM).events()
    demand(bool(events), "POST /completion streams nothing.")
    return found("ok", f"{len(events)} events for a form; echo and example are there.", num_events=len(events))


def check_gemma_stream(session: SmokeSession) -> Finding:
    """Listens first, submits then."""
    _need_chat(session)
    client_id = f"quire-smoke-{secrets.token_hex(8)}"
    session.exercised.add(f"GET {CHAT}/stream/{{client_id}}")
    with session.client.stream("GET", f"{CHAT}/stream/{client_id}", headers={"x-request-timeout": "30"}) as events:
        session.call(f"POST {CHAT}/submit", {"prompt": "Hello", "client_id": client_id}, status=202)
        names = [event.event for event in events]
    demand(bool(names) and names[-1] == "end", f"GET {CHAT}/stream does not end with the event 'end'.")
    return found("ok", f"A prompt came back as {len(names)} events.", num_events=len(names))


def check_llm_serving(session: SmokeSession) -> Finding:
    """Conversations, generation and what the service is; what it keeps is deleted."""
    for route in (f"GET {API}", f"GET {CHAT}/models", f"GET {API}/health", f"GET {API}/model-info"):
        session.call(route)
    generated = session.call(f"POST {API}/generate", {"prompt": "Once", "max_length": 4}).read(dict[str, Any])
    demand(
        len(generated["generated_text"]) == 1, f"POST {API}/generate makes {len(generated['generated_text'])} texts."
    )
    _need_chat(session)
    kept = session.client.exchange("GET", "/v1/conversations?limit=1").status != 404
    if not kept:
        return found("ok", "Described and generated; there are no conversations here to try.")
    new = session.call(f"POST {CHAT}/new", {}).read(dict[str, Any])
    conversation_id = str(new["id"])
    try:
        said = session.call(f"POST {CHAT}", {"message": "Hello", "conversation_id": conversation_id, "max_tokens": 4})
        demand(isinstance(said.read(dict[str, Any]).get("response"), str), f"POST {CHAT} answers without a response.")
        path = f"{CHAT}/conversation/{conversation_id}"
        history = session.call(f"GET {CHAT}/conversation/{{conversation_id}}", path=path).read(dict[str, Any])
        demand(len(history["messages"]) == 2, f"The history has {len(history['messages'])} of 2 messages.")
    finally:
        session.call("DELETE /v1/conversations/{conversation_id}", path=f"/v1/conversations/{conversation_id}")
    return found("ok", "Described, generated and chatted.")


def check_llm_serving_orders(session: SmokeSession) -> Finding:
    """The loaded default model is switched to and loaded: nothing changes."""
    if not session.card.is_default or session.card.state.value != "ready":
        raise NotTried(f"{session.model} is not the loaded default model: an order would change something.")
    session.call(f"POST {CHAT}/switch-model", {"model_name": session.model})
    session.call(f"POST {API}/load-model")
    return found("ok", f"Orders for {session.model}, which is loaded, change nothing.")


def checks() -> tuple[SmokeCheck, ...]:
    """By dialect."""
    serving = ("chat", "chat/new", "generate")
    shown = ("chat/conversation/{conversation_id}", "chat/models", "health", "model-info")
    table = (
        (
            "picollm",
            check_picollm,
            ("POST /chat/completions", "POST /chat", "GET /metadata", "GET /checkpoints", "GET /logo.svg"),
        ),
        ("ruvon", check_ruvon, ("POST /completions", "GET /queue", "GET /queue/recent", "GET /requests/{any_id}")),
        ("fastapi_llm", check_fastapi_llm, ("POST /completion", "POST /prompt_data", "GET /stream-example")),
        ("gemma_stream", check_gemma_stream, (f"GET {CHAT}/stream/{{client_id}}", f"POST {CHAT}/submit")),
        (
            "llm_serving",
            check_llm_serving,
            (f"GET {API}", *(f"POST {API}/{name}" for name in serving), *(f"GET {API}/{name}" for name in shown)),
        ),
        ("llm_orders", check_llm_serving_orders, (f"POST {CHAT}/switch-model", f"POST {API}/load-model")),
    )
    return tuple(SmokeCheck(name=name, routes=routes, run=run, is_optional=True) for name, run, routes in table)
