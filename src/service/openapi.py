"""The description of the API, from msgspec's own schemas of the wire structs: `python -m service.openapi`.

Litestar's generator loses limits of optional fields; this one publishes exactly what is decoded. A test compares the
operations with the routes of the application, and contracts/openapi.json with the output.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from contracts.explanation import Explanation, ExplanationList
from contracts.openai.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from contracts.openai.common import ErrorBody
from contracts.openai.completions import Completion, CompletionRequest
from contracts.openai.models import ModelCard, ModelList
from service.api_operation import Operation
from service.authorization import is_public
from service.openapi_conversations import conversation_operations
from service.routes.health import Health, Probe, Stats
from service.routes.pages import Welcome
from service.routes.request_limits import MAX_TIMEOUT_S, TIMEOUT_HEADER
from service.routes.requests import DEFAULT_LIMIT, MAX_LIMIT, ORDERS

API_VERSION = "1"
_STREAM_NOTE = "Events of the form `data: <JSON>` and at last `data: [DONE]`; an error ends the stream."


_REQUEST_ERRORS = {
    400: "The request is refused; `param` names the field.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "The key has used up what it may use for now; see retry-after.",
    500: "The engine failed on this request.",
    503: "Overloaded, starting, stopping, past the deadline, or the engine is dead; see retry-after.",
}


_CHAT_ERRORS = {
    404: "No such model, or no such conversation of this key.",
    409: "Another request writes to the conversation; see retry-after.",
}
_ACCESS_ERRORS = {
    401: "The server has keys, and the request carries none that is valid.",
    403: "The key lacks the scope, or the Host or Origin header is not this server's.",
}
_TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    "description": "Seconds after which the request is ended; the server's own limit may be shorter.",
}


def operations() -> list[Operation]:
    """Everything that is served, in the order of the page."""
    return [
        *_api_operations(),
        *conversation_operations(),
        *_why_operations(),
        *_health_operations(),
        *_page_operations(),
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
            event=ChatCompletionChunk,
            example={"messages": [{"role": "user", "content": "Tell me a short story."}], "stream": True},
            errors=_REQUEST_ERRORS | _CHAT_ERRORS,
        ),
        Operation(
            method="post",
            path="/v1/completions",
            operation_id="createCompletion",
            summary="Continue one or several texts.",
            request=CompletionRequest,
            reply=Completion,
            event=Completion,
            example={"prompt": "Once upon a time", "max_tokens": 32},
            errors=_REQUEST_ERRORS,
        ),
        Operation(
            method="get",
            path="/v1/models",
            operation_id="listModels",
            summary="List the served models.",
            reply=ModelList,
            errors={503: "The model is still being loaded."},
        ),
        Operation(
            method="get",
            path="/v1/models/{model_id}",
            operation_id="retrieveModel",
            summary="Describe one model; its id may hold slashes.",
            reply=ModelCard,
            errors={404: "No such model.", 503: "The model is still being loaded."},
            parameters=("model_id",),
        ),
    ]


def _why_operations() -> list[Operation]:
    errors = {404: "No such request is remembered.", 503: "The engine does not answer."}
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


def render_openapi() -> bytes:
    """The document as indented JSON."""
    served = operations()
    used: list[type[Any]] = [ErrorBody]
    for operation in served:
        used += [kind for kind in (operation.request, operation.reply, operation.event) if kind is not None]
    schemas, components = msgspec.json.schema_components(used, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(used, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in served:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, schema_of)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Quire",
            "version": API_VERSION,
            "description": "LLM inference with an OpenAI-compatible API. No field is accepted and then ignored.",
        },
        "security": [{"bearer": []}, {"password": []}, {}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The key; where the server has keys."},
                "password": {"type": "http", "scheme": "basic", "description": "The key as password, for browsers."},
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _describe(operation: Operation, schema_of: dict[type[Any], Any]) -> dict[str, Any]:
    reply_schema = {} if operation.reply is None else schema_of[operation.reply]
    content = {operation.media_type: {"schema": reply_schema}}
    if operation.event is not None:
        content["text/event-stream"] = {"schema": schema_of[operation.event]}
    description = _STREAM_NOTE if operation.event is not None else "Success."
    responses: dict[str, Any] = {"200": {"description": description, "content": content}}
    errors = operation.errors | ({} if is_public(operation.path) else _ACCESS_ERRORS)
    for status, reason in sorted(errors.items()):
        error = {"application/json": {"schema": schema_of[ErrorBody]}}
        responses[str(status)] = {"description": reason, "content": error}
    described: dict[str, Any] = {"operationId": operation.operation_id, "summary": operation.summary}
    if is_public(operation.path):
        described["security"] = []
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in operation.parameters
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in operation.query.items()
    ]
    if operation.event is not None:
        parameters.append(_TIMEOUT)
    if parameters:
        described["parameters"] = parameters
    if operation.request is not None:
        body = {"schema": schema_of[operation.request], "example": operation.example}
        described["requestBody"] = {"required": True, "content": {"application/json": body}}
    described["responses"] = responses
    return described


if __name__ == "__main__":
    sys.stdout.buffer.write(render_openapi())
