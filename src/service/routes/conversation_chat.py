"""Continues a conversation: what POST /v1/chat/completions does where its body names one.

The reply is that of a request without one; around it stand the turn's lock, its history, and what is kept of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp, HTTPDisconnectEvent, Receive, Scope, Send

from contracts.conversations import GenerationDefaults
from contracts.errors import UnsupportedParameter
from contracts.openai.chat import ChatCompletionRequest
from service import message_content
from service.conversations.prompting import TurnTranslator, read_posted, with_defaults
from service.conversations.turn import Turn
from service.conversations.turn_types import KEY_NAME, History, KeptReply
from service.engine_provider import ModelProvider
from service.generation_stream import ChoicePiece, GenerationStream
from service.option_defaults import NO_DEFAULTS, fill_in
from service.routes.body import ReceivedBody
from service.routes.conversations import owner_of
from service.routes.generation import (
    OPENAI_FRAMING,
    Framing,
    Reply,
    ReplyForm,
    ReplyHead,
    admit,
    in_background,
    load_within,
    new_head,
)
from service.routes.replayed_reply import Replay, replay
from service.routes.replies import reply_with
from service.routes.request_limits import DETACH_HEADER, limits_of, read_key
from service.sse import end_tasks, wait_for_disconnect

NewForm = Callable[[ChatCompletionRequest, ReplyHead, History | None], ReplyForm]
"""Makes the form of one reply; the history is that of a conversation before it, None without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatManner:
    """How a route answers a chat request."""

    new_form: NewForm
    defaults: GenerationDefaults = NO_DEFAULTS
    """Of the route, where neither request nor conversation nor, for the length, the model says anything."""
    framing: Framing = OPENAI_FRAMING


class ConversationReply:
    """Owner of one request from its place in the conversation's queue to the end of its turn.

    It watches for the client to leave all the time: one that is gone while it waits costs nobody anything.
    """

    def __init__(
        self, request: Request[Any, Any, Any], received: ReceivedBody[ChatCompletionRequest], manner: ChatManner
    ) -> None:
        self._request = request
        self._received = received
        self._manner = manner
        body = received.body
        self._turn = Turn(
            request.app.state["conversations"],
            owner_of(request),
            body.conversation or "",
            is_stream=bool(body.stream),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry. Raises what refuses the request; nothing has been sent by then."""
        gone = asyncio.create_task(wait_for_disconnect(receive))
        preparing = asyncio.create_task(self._prepare())

        async def receive_end() -> HTTPDisconnectEvent:
            await asyncio.shield(gone)
            return {"type": "http.disconnect"}

        try:
            await asyncio.wait({gone, preparing}, return_when=asyncio.FIRST_COMPLETED)
            if preparing.done():
                reply = preparing.result()
                await reply(scope, receive_end, send)
        finally:
            await end_tasks(gone, preparing)
            await self._turn.close()

    async def _prepare(self) -> ASGIApp:
        """Everything up to the engine's yes."""
        posted = read_posted(self._received.body)
        provider: ModelProvider = self._request.app.state["provider"]
        limits = limits_of(self._request, provider.limits)
        if limits.is_detached:
            raise UnsupportedParameter(
                f"The header {DETACH_HEADER} does not go with 'conversation', which keeps what a reply has said by "
                "itself. Leave it out.",
                param=DETACH_HEADER,
            )
        key = read_key(self._request.headers.getall(KEY_NAME, []))
        limits = msgspec.structs.replace(limits, default_max_tokens=self._manner.defaults.max_tokens)
        history = await self._turn.take()
        if key is not None:
            recalled = await self._turn.recall(posted.messages, key)
            if isinstance(recalled, KeptReply):
                return self._replay(recalled, history)
            history = recalled or history
        body = fill_in(with_defaults(self._received.body, history.conversation), self._manner.defaults)
        # After the defaults, which may name the model.
        serving = await load_within(provider, body.model, limits.request_timeout_s)
        head = new_head("chatcmpl-", serving.model.info)
        translator = TurnTranslator(body, posted, history, serving.model)
        num_bytes = self._received.num_bytes + history.num_bytes
        text_request = await in_background(num_bytes, translator.translate, head.id, limits)
        await self._turn.post(posted.messages, history.retried_turn(posted.messages), head.model, key)
        try:
            generation = await admit(provider, serving, [text_request], TurnGeneration)
        except Exception as error:
            self._turn.fail(error)
            raise
        generation.turn = self._turn
        return await reply_with(
            Reply(
                generation=generation,
                form=self._manner.new_form(body, head, history),
                head=head,
                is_stream=bool(body.stream),
                extra_headers=self._received.reply_headers,
                content=message_content.of_chat(provider.settings, body.messages),
                framing=self._manner.framing,
            ),
            self._request,
        )

    def _replay(self, kept: KeptReply, history: History) -> ASGIApp:
        """What was said before, in this route's manner."""
        body, manner = self._received.body, self._manner
        what = Replay(kept=kept, new_form=lambda head: manner.new_form(body, head, history), framing=manner.framing)
        return replay(what, self._received)


class TurnGeneration(GenerationStream):
    """A generation whose text is the reply of a turn: it is kept before anybody is told that it has ended."""

    turn: Turn

    async def take(self) -> list[ChoicePiece]:
        """As ever; the empty list that is the end comes when the reply is in the database."""
        try:
            pieces = await super().take()
        except Exception as error:
            self.turn.fail(error)
            raise
        for _, piece in pieces:
            self.turn.add(piece.text, piece.finish_reason)
        if not pieces:
            await self.turn.finish()
        return pieces
