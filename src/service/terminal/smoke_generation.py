"""Smoke checks of generation: one-shot and streamed answers, the records that they leave, and how they are ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from contracts.checkup import Finding
from contracts.explanation import Explanation, ExplanationList
from contracts.openai.chat import ChatCompletion, ChatCompletionChunk
from contracts.openai.common import Usage
from contracts.openai.completions import Completion
from service.terminal.api_client import EventStream, RequestRefused
from service.terminal.examination import found
from service.terminal.smoke_session import NotTried, Reply, SmokeCheck, SmokeSession, demand, quoted

NUM_TOKENS = 12
LONG_TOKENS = 4096
"""Of a request that is to be cancelled, where the model's window allows it."""
NUM_TRIES = 3
"""On a GPU a busy server may round at other places from one step to the next, and a tie falls otherwise."""
RECORD_WAIT_S = 5.0

CHAT = "POST /v1/chat/completions"
TEXT = "POST /v1/completions"
RECORD = "GET /v1/requests/{any_id}"
CANCEL = "DELETE /v1/requests/{any_id}"
PROMPT = "The story begins on a cold morning in"


def check_chat(session: SmokeSession) -> Finding:
    """Both forms say the same at temperature 0."""
    if session.card.kind == "base":
        raise NotTried(f"{session.model} is a base model: it has no chat template.")
    body: dict[str, Any] = {
        "model": session.model,
        "messages": [{"role": "user", "content": "Tell me a short story."}],
        "temperature": 0,
        "max_tokens": NUM_TOKENS,
    }

    def once() -> tuple[Reply, ChatCompletion, str, Usage | None]:
        reply = session.call(CHAT, body)
        whole = reply.read(ChatCompletion)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = session.call(CHAT, {**body, **options}).chunks(ChatCompletionChunk)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return reply, whole, text, next((one.usage for one in chunks if isinstance(one.usage, Usage)), None)

    for _ in range(NUM_TRIES):
        reply, whole, streamed, usage = once()
        text = whole.choices[0].message.content or ""
        if text == streamed:
            break
    demand(text == streamed, f"{CHAT} says {text!r} at once and {streamed!r} as a stream, both at temperature 0.")
    _check_usage(CHAT, whole.usage, usage)
    _remember(session, reply, whole.id, text)
    return found(
        "ok",
        f"{whole.usage.completion_tokens} tokens, the same at once and as a stream; usage adds up.",
        completion_tokens=whole.usage.completion_tokens,
        prompt_tokens=whole.usage.prompt_tokens,
        finish_reason=whole.choices[0].finish_reason,
    )


def check_text(session: SmokeSession) -> Finding:
    """The same for raw texts."""
    body: dict[str, Any] = {"model": session.model, "prompt": PROMPT, "temperature": 0, "max_tokens": NUM_TOKENS}
    for _ in range(NUM_TRIES):
        reply = session.call(TEXT, body)
        whole = reply.read(Completion)
        chunks = session.call(TEXT, {**body, "stream": True}).chunks(Completion)
        streamed = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
        text = whole.choices[0].text
        if text == streamed:
            break
    demand(text == streamed, f"{TEXT} says {text!r} at once and {streamed!r} as a stream, both at temperature 0.")
    demand(isinstance(whole.usage, Usage), f"{TEXT} tells no usage.")
    if isinstance(whole.usage, Usage):
        _check_usage(TEXT, whole.usage, None)
    _remember(session, reply, whole.id, text)
    return found("ok", "The same text at once and as a stream; usage adds up.")


def _check_usage(route: str, usage: Usage, streamed: Usage | None) -> None:
    total = usage.prompt_tokens + usage.completion_tokens
    demand(
        usage.total_tokens == total, f"{route} counts {usage.total_tokens} tokens in all, but its parts are {total}."
    )
    demand(usage.prompt_tokens > 0, f"{route} counts no prompt tokens.")
    demand(
        0 < usage.completion_tokens <= NUM_TOKENS,
        f"{route} counts {usage.completion_tokens} new tokens, at most {NUM_TOKENS} were allowed.",
    )
    if streamed is not None:
        counts = (streamed.prompt_tokens, streamed.completion_tokens)
        demand(
            counts == (usage.prompt_tokens, usage.completion_tokens),
            f"{route} counts other tokens in its stream: {counts}.",
        )


def _remember(session: SmokeSession, reply: Reply, reply_id: str, text: str) -> None:
    demand("x-request-id" in reply.headers, f"{reply.route} answers without x-request-id.")
    trace_id = reply.headers.get("x-trace-id", "")
    demand(len(trace_id) == 32, f"{reply.route} answers without a trace id: x-trace-id is {trace_id!r}.")
    session.reply_id, session.trace_id, session.reply_text = reply_id, trace_id, text


def check_record(session: SmokeSession) -> Finding:
    """The last reply can be looked up by its ids, drawn, listed and replayed."""
    if session.reply_id is None or session.trace_id is None:
        raise NotTried("Nothing was generated that could be looked up.")
    record = _wait_for(session, session.reply_id, lambda one: one.status not in ("queued", "running"))
    demand(record.status == "completed", f"{RECORD} says that the last request {record.status}.")
    demand(record.trace_id == session.trace_id, f"{RECORD} tells another trace id than the reply did.")
    by_trace = session.call(RECORD, path=f"/v1/requests/{session.trace_id}").read(Explanation)
    demand(by_trace.id == record.id, f"{RECORD} finds another request by the trace id.")
    session.call(RECORD, path=f"/v1/requests/{quoted(record.request_id)}")
    drawn = session.call("GET /v1/requests/{any_id}/timeline", path=f"/v1/requests/{record.id}/timeline").content
    demand(bool(drawn.strip()), "The timeline is empty.")
    listed = session.call("GET /v1/requests", query="?limit=5&order=newest").read(ExplanationList)
    demand(bool(listed.data), "GET /v1/requests lists nothing.")
    return found(
        "ok", f"Found by id and by trace id {session.trace_id}, drawn and listed.", main_cause=record.main_cause
    )


def check_replay(session: SmokeSession) -> Finding:
    """The events of a request that has ended can be read again."""
    if session.reply_id is None:
        raise NotTried("Nothing was generated that could be read again.")
    route = "GET /v1/requests/{any_id}/events"
    events = session.call(route, path=f"/v1/requests/{session.reply_id}/events").events()
    demand(bool(events) and events[-1].data == "[DONE]", f"{route} does not end with [DONE].")
    demand(any(event.id is not None for event in events), f"{route} does not number its events.")
    return found("ok", f"{len(events)} numbered events of the last request were read again.", num_events=len(events))


def check_cancel(session: SmokeSession) -> Finding:
    """A stream that is cancelled by its id ends, and its record says so."""

    def cancel(any_id: str, events: EventStream) -> None:
        session.call(CANCEL, path=f"/v1/requests/{quoted(any_id)}")
        try:
            for _ in events:
                pass
        except RequestRefused:
            return  # the error event with which a cancelled stream ends

    return _end_early(session, cancel, "cancelled by its id")


def check_disconnect(session: SmokeSession) -> Finding:
    """A client that goes away ends its request."""
    return _end_early(session, lambda any_id, events: None, "left by its client")


def _end_early(session: SmokeSession, end: Callable[[str, EventStream], None], how: str) -> Finding:
    window = session.card.max_model_len or 1024
    num_tokens = min(LONG_TOKENS, window - window // 4)
    body = {
        **{"model": session.model, "prompt": PROMPT, "max_tokens": num_tokens},
        **{"ignore_eos": True, "stream": True, "temperature": 0},
    }
    session.exercised.add(TEXT)
    started_s = time.monotonic()
    with session.client.stream("POST", "/v1/completions", body) as events:
        any_id = events.headers.get("x-request-id", "")
        for event in events:
            if msgspec.json.decode(event.data, type=Completion).choices[0].text:
                break
        end(any_id, events)
    record = _wait_for(session, any_id, lambda one: one.status not in ("queued", "running"))
    if record.status == "completed":
        raise NotTried(f"All {num_tokens} tokens were there before the request could be ended.")
    demand(record.status == "cancelled", f"A request that was {how} is recorded as {record.status}.")
    freed_s = time.monotonic() - started_s
    return found(
        "ok",
        f"A request that was {how} ended after {record.completion_tokens} of {num_tokens} tokens.",
        completion_tokens=record.completion_tokens,
        max_tokens=num_tokens,
        total_s=round(freed_s, 3),
    )


def _wait_for(session: SmokeSession, any_id: str, is_there: Callable[[Explanation], bool]) -> Explanation:
    """The record once it is as wanted, or as it is when patience ends."""
    deadline_s = time.monotonic() + RECORD_WAIT_S
    while True:
        record = session.call(RECORD, path=f"/v1/requests/{quoted(any_id)}").read(Explanation)
        if is_there(record) or time.monotonic() > deadline_s:
            return record
        time.sleep(0.05)


def check_refusals(session: SmokeSession) -> Finding:
    """What cannot be done is refused, with the field or the model by name."""
    negative = session.refused(TEXT, {"model": session.model, "prompt": PROMPT, "max_tokens": -1}, status=400)
    demand(negative.get("param") == "max_tokens", f"{TEXT} with max_tokens -1 blames {negative.get('param')!r}.")
    wrong = session.refused(TEXT, {"model": session.model, "prompt": PROMPT, "temperature": "hot"}, status=400)
    demand(wrong.get("param") == "temperature", f"{TEXT} with temperature 'hot' blames {wrong.get('param')!r}.")
    unknown = session.refused(TEXT, {"model": "quire-smoke-no-such-model", "prompt": PROMPT}, status=404)
    demand(
        unknown.get("code") == "model_not_found", f"{TEXT} for an unknown model has the code {unknown.get('code')!r}."
    )
    session.refused(CHAT, {"model": session.model}, status=400)
    session.refused(RECORD, None, path="/v1/requests/quire-smoke-no-such-request", status=404)
    return found("ok", "Bad values are 400 with the field's name; an unknown model or request is 404.")


def checks() -> tuple[SmokeCheck, ...]:
    """In their order: later ones look up what earlier ones left."""
    records = (RECORD, "GET /v1/requests/{any_id}/timeline", "GET /v1/requests")
    return (
        SmokeCheck(name="completions", routes=(TEXT,), run=check_text),
        SmokeCheck(name="chat", routes=(CHAT,), run=check_chat),
        SmokeCheck(name="records", routes=records, run=check_record),
        SmokeCheck(name="replay", routes=("GET /v1/requests/{any_id}/events",), run=check_replay),
        SmokeCheck(name="cancel", routes=(TEXT, CANCEL, RECORD), run=check_cancel),
        SmokeCheck(name="disconnect", routes=(TEXT, RECORD), run=check_disconnect),
        SmokeCheck(name="refusals", routes=(TEXT, CHAT, RECORD), run=check_refusals),
    )
