"""The LLM Serving API below /api/v1: chat with kept conversations, and plain generation."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.compat.llm_serving import (
    ChatReply,
    ChatRequest,
    ConversationHistory,
    GenerateParameters,
    GenerateReply,
    GenerateRequest,
    HistoryMessage,
    NewConversationRequest,
    UsedParameters,
)
from contracts.conversations import ConversationDetail, CreateConversation, GenerationDefaults
from contracts.errors import InvalidValue
from contracts.openai.chat import ChatCompletionRequest, Message, SystemMessage, UserMessage
from contracts.openai.common import Usage
from contracts.openai.completions import CompletionRequest
from service.compat.decoding import begin, not_blank, provider_of, receive, refuse_detached, with_body
from service.compat.forms import NAMED_ERRORS, TokenForm, WholeForm, named_event
from service.conversations.turn_types import History, TurnMessage
from service.detokenizer import TextPiece
from service.routes.body import BodyDecoder, has_body
from service.routes.chat import answer_chat
from service.routes.completions import CompletionManner, answer_completion
from service.routes.conversation_chat import ChatManner
from service.routes.conversations import open_conversations, owner_of, with_turn_limit
from service.routes.generation import ReplyHead
from service.routes.health import Health, health_of

UNTITLED: Final = "New conversation"
_CHAT: Final = BodyDecoder(ChatRequest)
_NEW: Final = BodyDecoder(NewConversationRequest)
_GENERATE: Final = BodyDecoder(GenerateRequest)
_NO_STORE: Final = {"cache-control": "no-store"}
_CHAT_DEFAULTS: Final = GenerationDefaults(temperature=0.6, top_p=0.9, top_k=50, max_tokens=200)
_GENERATE_DEFAULTS: Final = GenerationDefaults(temperature=0.7, top_p=0.9, top_k=50, max_tokens=100)


@post("/api/v1/chat", status_code=200)
async def chat(request: Request[Any, Any, Any]) -> ASGIApp:
    """Say something in a conversation that is kept; without one it begins there."""
    limits = begin(request)
    received = await receive(request, _CHAT)
    refuse_detached(limits)
    wanted = received.body
    body = to_chat(wanted)
    provider = provider_of(request)
    provider.catalog.find(wanted.model_name or provider.table.default_alias)  # before a conversation is made for it
    if wanted.conversation_id is None:
        opened = await open_conversations(request)
        new = CreateConversation(system_prompt=wanted.system_prompt, model=wanted.model_name)
        made = await opened.store.create(owner_of(request), with_turn_limit(new, provider.settings))
        body = msgspec.structs.replace(body, conversation=made.id, messages=body.messages[-1:])
    return await answer_chat(request, with_body(received, body), limits, _CHAT_MANNER)


@post("/api/v1/chat/new", status_code=200)
async def new_conversation(request: Request[Any, Any, Any]) -> Response[ConversationHistory]:
    """Begin a conversation; the body may be absent."""
    wanted = (await receive(request, _NEW)).body if has_body(request) else NewConversationRequest()
    provider = provider_of(request)
    provider.catalog.find(wanted.model_name or provider.table.default_alias)
    opened = await open_conversations(request)
    new = CreateConversation(system_prompt=wanted.system_prompt, model=wanted.model_name, max_turns=wanted.max_length)
    made = await opened.store.create(owner_of(request), with_turn_limit(new, provider.settings))
    found = await opened.store.read(owner_of(request), made.id)
    return Response(to_history(found, "New conversation started"), headers=_NO_STORE)


@get("/api/v1/chat/conversation/{conversation_id:str}")
async def show_conversation(
    request: Request[Any, Any, Any], conversation_id: FromPath[str]
) -> Response[ConversationHistory]:
    """A conversation with its messages."""
    opened = await open_conversations(request)
    found = await opened.store.read(owner_of(request), conversation_id)
    return Response(to_history(found, "Conversation found"), headers=_NO_STORE)


@post("/api/v1/generate", status_code=200)
async def generate(request: Request[Any, Any, Any]) -> ASGIApp:
    """Continue a text, once or several times."""
    limits = begin(request)
    received = await receive(request, _GENERATE)
    refuse_detached(limits)
    asked = with_body(received, to_completion(received.body))
    return await answer_completion(request, asked, limits, _GENERATE_MANNER)


@get("/api/v1/health", sync_to_thread=False)
def show_health(request: Request[Any, Any, Any]) -> Response[Health]:
    """The same as /health."""
    health = health_of(request)
    return Response(health, status_code=503 if health.status == "dead" else 200, headers=_NO_STORE)


def to_chat(wanted: ChatRequest) -> ChatCompletionRequest:
    """The message as a turn of its conversation."""
    if wanted.max_tokens is not None and wanted.max_length not in (None, wanted.max_tokens):
        raise InvalidValue(
            f"'max_tokens' is {wanted.max_tokens} and 'max_length' is {wanted.max_length}. Give one of them.",
            param="max_length",
        )
    messages: list[Message] = [UserMessage(content=not_blank(wanted.message, "message"))]
    if wanted.system_prompt is not None:
        messages.insert(0, SystemMessage(content=wanted.system_prompt))
    return ChatCompletionRequest(
        messages=messages,
        model=wanted.model_name,
        max_completion_tokens=wanted.max_tokens or wanted.max_length,
        temperature=wanted.temperature,
        top_p=1.0 if wanted.top_p == 0 else wanted.top_p,
        top_k=wanted.top_k,
        stream=wanted.stream,
        conversation=wanted.conversation_id,
    )


def to_completion(wanted: GenerateRequest) -> CompletionRequest:
    """The same for the canonical route."""
    is_greedy = wanted.do_sample is False
    return CompletionRequest(
        prompt=not_blank(wanted.prompt, "prompt"),
        max_tokens=wanted.max_length,
        temperature=0.0 if is_greedy else wanted.temperature,
        top_p=1.0 if wanted.top_p == 0 else wanted.top_p,
        top_k=wanted.top_k,
        n=wanted.num_return_sequences,
    )


def to_history(found: ConversationDetail, message: str) -> ConversationHistory:
    """A conversation in older words; its system prompt is the first message."""
    messages = [
        HistoryMessage(role=one.role, content=one.content, timestamp=_to_text(one.created_at)) for one in found.messages
    ]
    if found.system_prompt is not None:
        first = HistoryMessage(role="system", content=found.system_prompt, timestamp=_to_text(found.created_at))
        messages.insert(0, first)
    counts = {role: sum(one.role == role for one in messages) for role in ("system", "user", "assistant")}
    return ConversationHistory(
        id=found.id,
        conversation_id=found.id,
        message=message,
        title=found.title or UNTITLED,
        created_at=_to_text(found.created_at),
        updated_at=_to_text(found.updated_at),
        messages=messages,
        message_count=counts,
        max_length=found.max_turns,
    )


def _to_text(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


class TurnForm(TokenForm):
    """The reply of /api/v1/chat; a stream has events of tokens, then `end` with the whole reply."""

    def __init__(self, body: ChatCompletionRequest, head: ReplyHead, history: History | None) -> None:
        super().__init__()
        self._request = body
        self._head = head
        self._history = history
        self._started_s = time.monotonic()

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """One event for each piece, which is kept for the end."""
        super().add_events(out, choice, piece)
        self.collect(choice, piece)

    def closing(self, usage: Usage) -> bytes:
        """The last event."""
        return named_event("end", self.body(1, usage))

    def body(self, num_choices: int, usage: Usage) -> bytes:
        """The whole reply as JSON."""
        return msgspec.json.encode(
            ChatReply(
                response=self._text(),
                conversation_id=self._request.conversation or "",
                model_name=self._head.model,
                generation_time=round(time.monotonic() - self._started_s, 3),
                message_count=self._count(),
                parameters=UsedParameters(
                    max_tokens=self._request.max_completion_tokens or _CHAT_DEFAULTS.max_tokens,
                    temperature=self._request.temperature,
                    top_p=self._request.top_p,
                    top_k=self._request.top_k,
                ),
            )
        )

    def _count(self) -> int:
        """What the conversation holds with this turn."""
        if self._history is None:
            return 0
        kept = self._history.conversation
        content = self._request.messages[-1].content
        posted = [TurnMessage(role="user", content=content if isinstance(content, str) else "")]
        num_new = 2 if self._history.retried_turn(posted) is None else 1
        return kept.num_messages + num_new + (kept.system_prompt is not None)


class GenerateForm(WholeForm):
    """The reply of /api/v1/generate."""

    def __init__(self, body: CompletionRequest, head: ReplyHead) -> None:
        super().__init__()
        self._request = body
        self._head = head
        self._started_s = time.monotonic()

    def body(self, num_choices: int, usage: Usage) -> bytes:
        """The whole reply as JSON."""
        asked = self._request
        return msgspec.json.encode(
            GenerateReply(
                generated_text=[self._text(choice) for choice in range(num_choices)],
                prompt=asked.prompt if isinstance(asked.prompt, str) else "",
                model_name=self._head.model,
                generation_time=round(time.monotonic() - self._started_s, 3),
                parameters=GenerateParameters(
                    max_tokens=asked.max_tokens or _GENERATE_DEFAULTS.max_tokens,
                    temperature=asked.temperature,
                    top_p=asked.top_p,
                    top_k=asked.top_k,
                    num_return_sequences=asked.n or 1,
                    do_sample=asked.temperature != 0,
                ),
            )
        )


_CHAT_MANNER: Final = ChatManner(new_form=TurnForm, defaults=_CHAT_DEFAULTS, framing=NAMED_ERRORS)
_GENERATE_MANNER: Final = CompletionManner(
    new_form=lambda body, head, requests: GenerateForm(body, head), defaults=_GENERATE_DEFAULTS
)
HANDLERS = (chat, new_conversation, show_conversation, generate, show_health)
