"""The description of the API, from msgspec's own schemas of the wire structs: `python -m service.openapi`.

Litestar's generator loses limits of optional fields; this one publishes exactly what is decoded. A test compares the
operations with the routes of the application, and contracts/openapi.json with the output.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import msgspec

from contracts.openai.common import ErrorBody
from service.api_operation import Operation
from service.authorization import is_public
from service.openapi_operations import operations

API_VERSION = "1"
_STREAM_NOTE = "Events of the form `data: <JSON>` and at last `data: [DONE]`; an error ends the stream."
_ACCESS_ERRORS = {
    401: "The server has keys, and the request carries none that is valid.",
    403: "The key lacks the scope, or the Host or Origin header is not this server's.",
}


def render_openapi(dialects: Collection[str] | None = None) -> bytes:
    """The document as indented JSON; of the routes for older services, those of the dialects (None: of all)."""
    served = operations(dialects)
    used: list[type[Any]] = [ErrorBody]
    for operation in served:
        kinds = (operation.request, operation.reply, *operation.events, operation.error)
        used += [kind for kind in kinds if kind is not None]
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


def list_endpoints(dialects: Collection[str]) -> dict[str, str]:
    """Path to methods and what they do, for programs that ask for /."""
    found: dict[str, str] = {}
    for operation in operations(dialects):
        path = operation.path.replace("{any_id}", "{id}")
        before = f"{found[path]} " if path in found else ""
        found[path] = f"{before}{operation.method.upper()}: {operation.summary}"
    return found


def _describe(operation: Operation, schema_of: dict[type[Any], Any]) -> dict[str, Any]:
    reply_schema = {} if operation.reply is None else schema_of[operation.reply]
    content = {operation.media_type: {"schema": reply_schema}}
    if operation.events:
        kinds = [schema_of[kind] for kind in operation.events]
        stream = {"text/event-stream": {"schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}}
        content = stream if operation.reply is None else content | stream
    description = _STREAM_NOTE if operation.events else "Success."
    responses: dict[str, Any] = {str(operation.status): {"description": description, "content": content}}
    errors = operation.errors | ({} if is_public(operation.path) else _ACCESS_ERRORS)
    for status, reason in sorted(errors.items()):
        kind = operation.error if status in operation.errors else ErrorBody
        error = {"application/json": {"schema": schema_of[kind]}}
        responses[str(status)] = {"description": reason, "content": error}
    described: dict[str, Any] = {"operationId": operation.operation_id, "summary": operation.summary}
    if is_public(operation.path):
        described["security"] = []
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.request is not None:
        body = {"schema": schema_of[operation.request], "example": operation.example}
        bodies = dict.fromkeys(operation.request_media, body)
        described["requestBody"] = {"required": operation.is_body_required, "content": bodies}
    described["responses"] = responses
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    plain = {"type": "string"}
    found = [{"name": name, "in": "path", "required": True, "schema": plain} for name in operation.parameters]
    found += [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in operation.query.items()
    ]
    return found + operation.headers


if __name__ == "__main__":
    sys.stdout.buffer.write(render_openapi())
