"""What the API serves, an operation for each method of each path; service.openapi makes the document of it."""

from __future__ import annotations

from collections.abc import Collection

from contracts.explanation import Explanation, ExplanationList
from contracts.live import LiveView
from contracts.openai.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from contracts.openai.completions import Completion, CompletionRequest
from contracts.openai.models import ModelCard, ModelList, UnloadOptions
from contracts.presets import PresetList
from service.api_operation import Operation
from service.conversations.turn_types import KEY_NAME
from service.openapi_compat import compat_operations
from service.openapi_conversations import conversation_operations
from service.openapi_jaeger import JAEGER_ROUTES
from service.routes.health import Health, Probe, Stats
from service.routes.pages import Welcome
from service.routes.request_events import AFTER_PARAMETER, LAST_EVENT_HEADER
from service.routes.request_limits import DETACH_HEADER, DETACH_WORD, MAX_KEY_LEN, MAX_TIMEOUT_S, TIMEOUT_HEADER
from service.routes.requests import DEFAULT_LIMIT, MAX_LIMIT, ORDERS

_REQUEST_ERRORS = {
    400: "The request is refused; `param` names the field.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    409: "It was cancelled meanwhile.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "The key has used up what it may use for now; see retry-after.",
    500: "The engine failed on this request.",
    503: "Overloaded, starting, stopping, past the deadline, or the engine is dead; see retry-after.",
}


_CHAT_ERRORS = {
    404: "No such model, or no such conversation of this key.",
    409: "Another request writes to the conversation, or this one was cancelled.",
    507: "The disk of the conversations is full.",
}
_RECORD_ERRORS = {404: "No such request is remembered.", 503: "The engine does not answer."}
_FOLLOW_ERRORS = {
    400: "A parameter or the header is refused.",
    409: "Several prompts or echo: the events cannot be made again.",
    410: "The record still lives, but its events have been given up.",
}
_TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    "description": "Seconds after which the request is ended; the server's own limit may be shorter.",
}


_DETACH = {
    "name": DETACH_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": [DETACH_WORD]},
    "description": "The request goes on when its client is gone, and the events of a stream are numbered, so that "
    "GET /v1/requests/{any_id}/events resumes it. Not with several prompts or echo.",
}
_KEY = {
    "name": KEY_NAME,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LEN},
    "description": "With 'conversation': a request that is sent again with its key is answered from what was kept, and "
    "nothing is kept twice; x-quire-replayed then says true.",
}
_LAST_EVENT = {
    "name": LAST_EVENT_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 0},
    "description": "Number of the last event that came; those behind it follow. Counts before `after`.",
}


def operations(dialects: Collection[str] | None = None) -> list[Operation]:
    """Everything that is served, in the order of the page; of the routes for older services, those of the dialects."""
    return [
        *_api_operations(),
        *conversation_operations(),
        *_model_operations(),
        _preset_operation(),
        *_why_operations(),
        *_request_operations(),
        *_jaeger_operations(),
        *_health_operations(),
        *_page_operations(),
        *compat_operations(dialects),
    ]


def _api_operations() -> list[Operation]:
    return [
        Operation(
            method="post",
            path="/v1/chat/completions",
            operation_id="createChatCompletion",
            summary="Answer a conversation, in one reply or as a stream of events.",
            request=ChatCompletionRequest,
            reply=ChatCompletion,
            events=(ChatCompletionChunk,),
            example={"messages": [{"role": "user", "content": "Tell me a short story."}], "stream": True},
            errors=_REQUEST_ERRORS | _CHAT_ERRORS,
            headers=[_TIMEOUT, _DETACH, _KEY],
        ),
        Operation(
            method="post",
            path="/v1/completions",
            operation_id="createCompletion",
            summary="Continue one or several texts.",
            request=CompletionRequest,
            reply=Completion,
            events=(Completion,),
            example={"prompt": "Once upon a time", "max_tokens": 32},
            errors=_REQUEST_ERRORS,
            headers=[_TIMEOUT, _DETACH],
        ),
    ]


def _preset_operation() -> Operation:
    return Operation(
        method="get",
        path="/v1/presets",
        operation_id="listPresets",
        summary="List the named sets of options that a request may name as `preset`.",
        reply=PresetList,
    )


def _model_operations() -> list[Operation]:
    errors = {404: "No such model.", 503: "The server is still starting."}
    return [
        Operation(
            method="get",
            path="/v1/models",
            operation_id="listModels",
            summary="List the declared models, the loaded ones and the others.",
            reply=ModelList,
            errors={503: errors[503]},
        ),
        Operation(
            method="get",
            path="/v1/models/{model_id}",
            operation_id="retrieveModel",
            summary="Describe one model; its id may hold slashes.",
            reply=ModelCard,
            errors=errors,
            parameters=("model_id",),
        ),
        Operation(
            method="post",
            path="/v1/models/{model_id}",
            operation_id="orderModel",
            summary="Load or unload a model, or make it the default: the id, then /load, /unload or /default. Answers "
            "when it is done, or, where text/event-stream is accepted, with the card at every stage. Needs the scope "
            "admin.",
            request=UnloadOptions,
            reply=ModelCard,
            events=(ModelCard,),
            example={},
            errors={
                400: "The body is refused, or this server has but one model.",
                404: errors[404],
                503: "The model cannot be loaded: the message says why; what was loaded still is.",
            },
            parameters=("model_id",),
        ),
    ]


def _why_operations() -> list[Operation]:
    errors = _RECORD_ERRORS
    return [
        Operation(
            method="get",
            path="/v1/requests",
            operation_id="listRequests",
            summary="Say of the requests that live, and of the last that ended, where their time went.",
            reply=ExplanationList,
            errors={400: "A parameter is refused.", 503: errors[503]},
            query={
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "order": {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]},
            },
        ),
        Operation(
            method="get",
            path="/v1/requests/{any_id}",
            operation_id="retrieveRequest",
            summary="Say where the time of one request went; by reply id, x-request-id or trace id.",
            reply=Explanation,
            errors=errors,
            parameters=("any_id",),
        ),
        Operation(
            method="get",
            path="/v1/requests/{any_id}/timeline",
            operation_id="drawRequest",
            summary="The same as text.",
            reply=None,
            errors=errors,
            parameters=("any_id",),
            media_type="text/plain",
        ),
    ]


def _jaeger_operations() -> list[Operation]:
    return [
        Operation(
            method="get",
            path=route.path,
            operation_id=route.operation_id,
            summary=route.summary,
            reply=route.reply,
            parameters=() if route.parameter is None else (route.parameter,),
            query=route.query,
            errors=route.errors,
            error=route.error,
        )
        for route in JAEGER_ROUTES
    ]


def _request_operations() -> list[Operation]:
    return [
        Operation(
            method="delete",
            path="/v1/requests/{any_id}",
            operation_id="cancelRequest",
            summary="End all that the id names and that waits or runs; answers with the newest as it is then.",
            reply=Explanation,
            errors=_RECORD_ERRORS,
            parameters=("any_id",),
        ),
        Operation(
            method="get",
            path="/v1/requests/{any_id}/events",
            operation_id="followRequest",
            summary="Its events from the first or any later one on, numbered, live or ended; then [DONE] or an error.",
            reply=None,
            events=(ChatCompletionChunk, Completion),
            errors=_RECORD_ERRORS | _FOLLOW_ERRORS,
            parameters=("any_id",),
            query={AFTER_PARAMETER: {"type": "integer", "minimum": 0, "default": 0}},
            headers=[_LAST_EVENT],
        ),
    ]


def _health_operations() -> list[Operation]:
    alive = "Whether the process works; answers at once. 503 with the same body once the engine is dead for good."
    ready = "Whether new requests are served; answers at once. 503 with the same body while they are not."
    return [
        Operation(
            method="get",
            path="/health",
            operation_id="checkHealth",
            summary="Whether requests are served; answers at once. 503 with the same body once the engine is dead.",
            reply=Health,
        ),
        _probe("/health/live", "checkLiveness", alive),
        _probe("/healthz", "checkHealthz", alive),
        _probe("/health/ready", "checkReadiness", ready),
        _probe("/readyz", "checkReadyz", ready),
        Operation(
            method="get",
            path="/stats",
            operation_id="readStats",
            summary="Every counter of the engine, at most half a second old, and what it serves.",
            reply=Stats,
            errors={503: "The model is still being loaded."},
        ),
        Operation(
            method="get",
            path="/v1/live",
            operation_id="watchEngine",
            summary="The engine at work, a few events a second: whose the KV blocks are, who runs, who waits, and what "
            "has been done so far. Of the default model, or of `model`. Needs the scope metrics.",
            reply=None,
            events=(LiveView,),
            errors={
                400: "A parameter is refused.",
                404: "No such model, or it is not loaded.",
                503: "The server is still starting, or too many watch already.",
            },
            query={"model": {"type": "string"}},
        ),
        Operation(
            method="get",
            path="/metrics",
            operation_id="readMetrics",
            summary="The engine's numbers for Prometheus; quire_engine_up is 0 while nothing is served.",
            reply=None,
            media_type="text/plain",
        ),
    ]


def _probe(path: str, operation_id: str, summary: str) -> Operation:
    return Operation(method="get", path=path, operation_id=operation_id, summary=summary, reply=Probe)


def _page_operations() -> list[Operation]:
    return [
        Operation(
            method="get",
            path="/",
            operation_id="showRoot",
            summary="The chat page for browsers, a short description for programs.",
            reply=Welcome,
        ),
        Operation(
            method="get",
            path="/docs",
            operation_id="showDocs",
            summary="This API as a page.",
            reply=None,
            media_type="text/html",
        ),
        Operation(
            method="get",
            path="/redoc",
            operation_id="showRedoc",
            summary="The same page.",
            reply=None,
            media_type="text/html",
        ),
        Operation(
            method="get", path="/openapi.json", operation_id="showOpenapi", summary="This description.", reply=None
        ),
        Operation(
            method="get",
            path="/assets/{name}",
            operation_id="showAsset",
            summary="A file of the pages.",
            reply=None,
            errors={404: "No such file."},
            parameters=("name",),
            media_type="application/octet-stream",
        ),
    ]
