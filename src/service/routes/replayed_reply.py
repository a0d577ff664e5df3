"""The reply to a request that was answered before: the kept text, without asking the engine.

Its usage is zero, as no token was computed; log probabilities are not kept. `x-quire-replayed: true` says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from litestar.types import ASGIApp, Receive, Scope, Send

from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.common import PromptTokensDetails, Usage
from service.conversations.turn_types import KeptReply
from service.detokenizer import TextPiece
from service.request_spans import current_trace_id
from service.routes.body import ReceivedBody
from service.routes.generation import Framing, ReplyForm, ReplyHead
from service.sse import EventStreamReply

REPLAYED: Final = (b"x-quire-replayed", b"true")
_log = structlog.get_logger("service.generation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What is said again, and in whose manner."""

    kept: KeptReply
    new_form: Callable[[ReplyHead], ReplyForm]
    framing: Framing


def replay(what: Replay, received: ReceivedBody[ChatCompletionRequest]) -> ASGIApp:
    """As the body asks for it: in one reply or as a stream. Its id is that of the kept message."""
    kept = what.kept
    head = ReplyHead(
        id=f"chatcmpl-{kept.id.removeprefix('msg_')}",
        created=kept.created_s,
        model=kept.model,
        system_fingerprint="",
        trace_id=current_trace_id() or msgspec.UNSET,
    )
    form = what.new_form(head)
    piece = TextPiece(text=kept.content, finish_reason=kept.finish_reason)
    usage = Usage(
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=0),
    )
    headers = [*received.reply_headers, REPLAYED]
    _log.info("reply_replayed", response_id=head.id, model=head.model, stream=bool(received.body.stream))
    if received.body.stream:
        return EventStreamReply(_events(form, piece, usage, what.framing), lambda: None, extra_headers=headers)
    form.collect(0, piece)
    return _json(form.body(1, usage), headers)


async def _events(form: ReplyForm, piece: TextPiece, usage: Usage, framing: Framing) -> AsyncIterator[bytes]:
    out = [form.opening(1)]
    form.add_events(out, 0, piece)
    yield b"".join((*out, form.closing(usage), framing.done))


def _json(body: bytes, extra_headers: list[tuple[bytes, bytes]]) -> ASGIApp:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *extra_headers,
    ]

    async def send_it(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return send_it
