"""picoLLM and the course server beside it: /chat/completions that streams by itself, /chat, facts of the model."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.types import ASGIApp

from contracts.compat.picollm import (
    CheckpointItem,
    CheckpointList,
    ModelMetadata,
    ShortChatReply,
    ShortChatRequest,
    ShortChatUsage,
    StreamedChatRequest,
    TokenChunk,
)
from contracts.conversations import GenerationDefaults
from contracts.errors import InvalidValue, UnsupportedParameter
from contracts.openai.chat import ChatCompletionChunk, ChatCompletionRequest, ChunkChoice, Delta
from contracts.openai.common import Usage
from service.compat.decoding import begin, provider_of, receive, refuse_detached, with_body
from service.compat.forms import WholeForm
from service.conversations.turn_types import History
from service.detokenizer import TextPiece
from service.routes.body import BodyDecoder
from service.routes.chat import ChatForm, answer_chat, wants_usage
from service.routes.conversation_chat import ChatManner
from service.routes.generation import ReplyHead
from service.routes.models import cards
from service.routes.pages import asset_reply, package_version

_STREAMED: Final = BodyDecoder(StreamedChatRequest)
_SHORT: Final = BodyDecoder(ShortChatRequest)
_NO_STORE: Final = {"cache-control": "no-store"}
_DEFAULTS: Final = GenerationDefaults(temperature=0.8, top_k=50, max_tokens=512)
_SHORT_DEFAULTS: Final = GenerationDefaults(temperature=0.8, top_k=8, max_tokens=80)


@post("/chat/completions", status_code=200)
async def stream_chat(request: Request[Any, Any, Any]) -> ASGIApp:
    """OpenAI's chat with more in its chunks; a stream unless `stream` is false."""
    limits = begin(request)
    received = await receive(request, _STREAMED)
    return await answer_chat(request, with_body(received, to_chat(received.body)), limits, _MANNER)


@post("/chat", status_code=200)
async def answer_shortly(request: Request[Any, Any, Any]) -> ASGIApp:
    """The reply of a conversation in one word of JSON."""
    limits = begin(request)
    received = await receive(request, _SHORT)
    refuse_detached(limits)
    short = received.body
    if short.stream:
        raise UnsupportedParameter(
            "'stream' is true, but /chat does not stream. Use /chat/completions.", param="stream"
        )
    body = ChatCompletionRequest(
        messages=short.messages,
        max_completion_tokens=short.max_new_tokens,
        temperature=short.temperature,
        top_k=short.top_k,
    )
    chat = with_body(received, body)
    return await answer_chat(request, chat, limits, _SHORT_MANNER)


@get("/metadata", sync_to_thread=False)
def show_metadata(request: Request[Any, Any, Any]) -> Response[ModelMetadata]:
    """What the default model is; nothing of where it lies."""
    info = provider_of(request).serving.engine.info
    config = {
        "architecture": info.architecture,
        "vocab_size": info.vocab_size,
        "max_model_len": info.max_model_len,
        "num_parameters": info.num_parameters,
        "dtype": info.dtype,
    }
    metadata = {
        "model": info.model_name,
        "device": info.device,
        "fingerprint": info.fingerprint,
        "version": package_version(),
    }
    return Response(ModelMetadata(config=config, metadata=metadata), headers=_NO_STORE)


@get("/checkpoints", sync_to_thread=False)
def list_checkpoints(request: Request[Any, Any, Any]) -> Response[CheckpointList]:
    """The declared models."""
    items = [
        CheckpointItem(name=card.id, state=card.state.value, is_default=card.is_default)
        for card in cards(provider_of(request))
    ]
    return Response(CheckpointList(items=items), headers=_NO_STORE)


@get("/logo.svg", sync_to_thread=False)
def show_logo(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The icon of the page."""
    return asset_reply(request, "icon.svg")


def to_chat(body: StreamedChatRequest) -> ChatCompletionRequest:
    """The request as the canonical route knows it: streamed by default, one limit of length, top_p above 0."""
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if limit is not None and body.max_new_tokens not in (None, limit):
        raise InvalidValue(
            f"'max_new_tokens' is {body.max_new_tokens}, but the request also asks for {limit}. Give one of them.",
            param="max_new_tokens",
        )
    return msgspec.structs.replace(
        body,
        stream=body.stream is not False,
        max_tokens=None,
        max_completion_tokens=limit or body.max_new_tokens,
        top_p=1.0 if body.top_p == 0 else body.top_p,
    )


class TokenChatForm(ChatForm):
    """Chat chunks with `token`, `delta`, `gpu` and, at last, `done`."""

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """The text of choice 0 twice more; the rest as ever."""
        if choice != 0 or not piece.text or piece.logprobs:
            super().add_events(out, choice, piece)
            return
        self._token = piece.text
        out.append(self._event([ChunkChoice(index=0, delta=Delta(content=piece.text))]))
        self._token = None
        super().add_events(out, choice, TextPiece(text="", logprobs=[], finish_reason=piece.finish_reason))

    _token: str | None = None

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None, *, is_last: bool) -> ChatCompletionChunk:
        chunk = super()._chunk(choices, usage, is_last=is_last)
        told = {name: getattr(chunk, name) for name in chunk.__struct_fields__}
        if self._token is not None:
            told |= {"token": self._token, "delta": self._token, "gpu": 0}
        return TokenChunk(**told, done=True if is_last else msgspec.UNSET)


def new_token_form(body: ChatCompletionRequest, head: ReplyHead, history: History | None) -> TokenChatForm:
    """The form of /chat/completions."""
    return TokenChatForm(head, has_logprobs=bool(body.logprobs), has_usage=wants_usage(body))


class ShortForm(WholeForm):
    """The reply of /chat."""

    def __init__(self, num_messages: int) -> None:
        super().__init__()
        self._usage = ShortChatUsage(prompt_messages=num_messages)

    def body(self, num_choices: int, usage: Usage) -> bytes:
        """The whole reply as JSON."""
        return msgspec.json.encode(ShortChatReply(reply=self._text(), usage=self._usage))


_MANNER: Final = ChatManner(new_form=new_token_form, defaults=_DEFAULTS)
_SHORT_MANNER: Final = ChatManner(
    new_form=lambda body, head, history: ShortForm(len(body.messages)), defaults=_SHORT_DEFAULTS
)
HANDLERS = (stream_chat, answer_shortly, show_metadata, list_checkpoints, show_logo)
