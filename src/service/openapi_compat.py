"""What the description of the API says of the routes for clients of older services, by dialect."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from contracts.compat.fastapi_llm import PromptData
from contracts.compat.gemma_stream import EndEvent, SubmitReply, SubmitRequest, TokenEvent
from contracts.compat.llm_serving import (
    ChatReply,
    ChatRequest,
    ConversationHistory,
    GenerateReply,
    GenerateRequest,
    LoadReply,
    ModelInfo,
    ModelOverview,
    NewConversationRequest,
    ServiceInfo,
    SwitchRequest,
)
from contracts.compat.picollm import (
    CheckpointList,
    ModelMetadata,
    ShortChatReply,
    ShortChatRequest,
    StreamedChatRequest,
    TokenChunk,
)
from contracts.compat.ruvon import CachedCompletionRequest, RequestStatus
from contracts.openai.chat import ChatCompletion
from contracts.openai.completions import Completion
from service.api_operation import Operation
from service.routes.health import Health, Stats
from service.routes.requests import DEFAULT_LIMIT, MAX_LIMIT, ORDERS

_BODY: Final = {
    400: "The request is refused; `param` names the field.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of another kind than this route takes.",
    422: "The body does not fit its schema; `param` names the field.",
}
_GENERATION: Final = _BODY | {
    404: "No such model.",
    409: "It was cancelled meanwhile.",
    429: "The key has used up what it may use for now; see retry-after.",
    500: "The engine failed on this request.",
    503: "Overloaded, starting, stopping, past the deadline, or the engine is dead; see retry-after.",
}
_NOT_LOADED: Final = {503: "The model is not loaded."}
_KEPT: Final = {
    404: "No such conversation of this key, or none are kept.",
    503: "The database of the conversations does not answer; see retry-after.",
}
_MESSAGES: Final = [{"role": "user", "content": "Tell me a short story."}]
_FORM: Final = ("application/x-www-form-urlencoded", "multipart/form-data")


def compat_operations(dialects: Collection[str] | None = None) -> list[Operation]:
    """Of the dialects that are named, in the order of the page; None: of all."""
    every = {
        "picollm": _picollm,
        "ruvon": _ruvon,
        "fastapi_llm": _fastapi_llm,
        "gemma_stream": _gemma_stream,
        "llm_serving": _llm_serving,
    }
    return [one for name, list_of in every.items() if dialects is None or name in dialects for one in list_of()]


def _get(path: str, operation_id: str, summary: str, reply: Any, **more: Any) -> Operation:
    return Operation(method="get", path=path, operation_id=operation_id, summary=summary, reply=reply, **more)


def _post(path: str, operation_id: str, summary: str, reply: Any, **more: Any) -> Operation:
    return Operation(method="post", path=path, operation_id=operation_id, summary=summary, reply=reply, **more)


def _picollm() -> list[Operation]:
    return [
        _post(
            "/chat/completions",
            "streamChat",
            "As /v1/chat/completions, but streamed unless `stream` is false, with `token` and `done` in its chunks.",
            ChatCompletion,
            request=StreamedChatRequest,
            events=(TokenChunk,),
            example={"messages": _MESSAGES, "max_tokens": 64},
            errors=_GENERATION,
        ),
        _post(
            "/chat",
            "answerShortly",
            "Answer a conversation in one reply.",
            ShortChatReply,
            request=ShortChatRequest,
            example={"messages": _MESSAGES},
            errors=_GENERATION,
        ),
        _get("/metadata", "showMetadata", "What the default model is.", ModelMetadata, errors=_NOT_LOADED),
        _get("/checkpoints", "listCheckpoints", "The declared models.", CheckpointList),
        _get("/logo.svg", "showLogo", "The icon of the page.", None, media_type="image/svg+xml"),
    ]


def _ruvon() -> list[Operation]:
    return [
        _post(
            "/completions",
            "complete",
            "As /v1/completions, with 20 tokens by default.",
            Completion,
            request=CachedCompletionRequest,
            events=(Completion,),
            example={"prompt": "Once upon a time", "max_tokens": 10},
            errors=_GENERATION,
        ),
        _get("/queue", "showQueue", "The same as /stats.", Stats, errors=_NOT_LOADED),
        _get(
            "/queue/recent",
            "listRecent",
            "The requests that ended last, without their texts.",
            list[RequestStatus],
            query={
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "order": {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]},
            },
            errors={422: "A parameter is refused."} | _NOT_LOADED,
        ),
        _get(
            "/requests/{any_id}",
            "showStatus",
            "The state and the times of one request.",
            RequestStatus,
            parameters=("any_id",),
            errors={404: "No such request is remembered."} | _NOT_LOADED,
        ),
    ]


def _fastapi_llm() -> list[Operation]:
    return [
        _post(
            "/completion",
            "completeForm",
            "Continue the text of a form (`prompt`, `prompt_form` or `message`), as events of bare text.",
            None,
            request=PromptData,
            request_media=_FORM,
            events=(str,),
            example={"prompt": "Once upon a time"},
            errors=_GENERATION,
        ),
        _post(
            "/prompt_data",
            "echoPrompt",
            "The same back.",
            PromptData,
            request=PromptData,
            example={"prompt": "Hello"},
            errors=_BODY,
        ),
        _get(
            "/stream-example",
            "streamExample",
            "Seven events, one after the other: they come at once where something on the way buffers.",
            None,
            events=(str,),
        ),
    ]


def _gemma_stream() -> list[Operation]:
    return [
        _get(
            "/api/v1/chat/stream/{client_id}",
            "listen",
            "Listen for the answer to one prompt; connect first, then submit. The last event is named `end`, with one "
            "named `error` before it where it failed.",
            None,
            parameters=("client_id",),
            events=(TokenEvent, EndEvent),
            errors={422: "The id is too long.", 503: "Too many clients listen, or the server is stopping."},
        ),
        _post(
            "/api/v1/chat/submit",
            "submit",
            "Give a prompt to the client that listens under the id, at whichever worker.",
            SubmitReply,
            status=202,
            request=SubmitRequest,
            example={"prompt": "Hello", "context": None, "client_id": "my-client"},
            errors=_BODY
            | {
                404: "No client of this key listens under that id.",
                409: "It has a prompt already.",
                503: "Overloaded, starting or stopping; see retry-after.",
            },
        ),
    ]


def _llm_serving() -> list[Operation]:
    return [*_llm_serving_chat(), *_llm_serving_models()]


def _llm_serving_chat() -> list[Operation]:
    return [
        _get("/api/v1", "describeService", "What the service is and where to go.", ServiceInfo),
        _post(
            "/api/v1/chat",
            "chat",
            "Say something in a kept conversation, or begin one. A stream has events with `token`, then one named "
            "`end` with the whole reply.",
            ChatReply,
            request=ChatRequest,
            events=(TokenEvent, ChatReply),
            example={"message": "Hello!"},
            errors=_GENERATION | {404: "No such model, or no such conversation of this key."},
        ),
        _post(
            "/api/v1/chat/new",
            "newConversation",
            "Begin a conversation.",
            ConversationHistory,
            request=NewConversationRequest,
            is_body_required=False,
            example={},
            errors=_BODY | _KEPT,
        ),
        _get(
            "/api/v1/chat/conversation/{conversation_id}",
            "showConversation",
            "A conversation with its messages.",
            ConversationHistory,
            parameters=("conversation_id",),
            errors=_KEPT,
        ),
        _post(
            "/api/v1/generate",
            "generate",
            "Continue a text, once or several times.",
            GenerateReply,
            request=GenerateRequest,
            example={"prompt": "Once upon a time", "max_length": 32},
            errors=_GENERATION,
        ),
    ]


def _llm_serving_models() -> list[Operation]:
    return [
        _get("/api/v1/chat/models", "listChatModels", "The declared models.", ModelOverview),
        _post(
            "/api/v1/chat/switch-model",
            "switchModel",
            "Load a declared model and make it the default. Needs the scope admin.",
            LoadReply,
            request=SwitchRequest,
            example={"model_name": "quire-pico"},
            errors=_BODY | {400: "No such model.", 503: "It cannot be loaded; the old one still serves."},
        ),
        _get("/api/v1/health", "showApiHealth", "The same as /health.", Health),
        _get("/api/v1/model-info", "showModel", "The default model, loaded or not.", ModelInfo),
        _post(
            "/api/v1/load-model",
            "loadModel",
            "Load the default model where it is not. Needs the scope admin.",
            LoadReply,
            errors=_NOT_LOADED,
        ),
    ]
