"""Reads what clients of older services send: JSON whose schema errors are 422, and forms. Knows no route."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from contracts.errors import InvalidRequest, InvalidValue, MissingParameter, UnknownParameter, clip
from contracts.settings import ServerSettings
from service.engine_provider import ModelProvider
from service.http_errors import SchemaError
from service.routes.body import MAX_INLINE_BODY_BYTES, BodyDecoder, ReceivedBody, read_bytes
from service.routes.request_limits import DETACH_HEADER, limits_of
from service.translate import Limits

MAX_FORM_FIELDS: Final = 16
URL_ENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
_SCHEMA_ERRORS: Final = (InvalidRequest, InvalidValue, MissingParameter, UnknownParameter)

T = TypeVar("T", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)


def provider_of(request: Request[Any, Any, Any]) -> ModelProvider:
    """What the models are asked through."""
    provider: ModelProvider = request.app.state["provider"]
    return provider


def begin(request: Request[Any, Any, Any]) -> Limits:
    """What is checked before a body is read; raises Starting, EngineDead, or InvalidValue for a header."""
    provider = provider_of(request)
    provider.check_started()
    return limits_of(request, provider.limits)


async def receive(request: Request[Any, Any, Any], decoder: BodyDecoder[T]) -> ReceivedBody[T]:
    """Read and decode a JSON body; raises SchemaError where it does not fit the struct."""
    try:
        return await decoder.receive(request, provider_of(request).settings)
    except InvalidRequest as error:
        raise as_schema_error(error) from None


async def receive_curl(request: Request[Any, Any, Any], decoder: BodyDecoder[T]) -> ReceivedBody[T]:
    """The same, also for what `curl -d` sends without a content-type of its own: JSON that is declared as a form.

    A page of another site could send such a body too, but never without the Origin header, which is checked before.
    """
    if content_type_of(request) != URL_ENCODED:
        return await receive(request, decoder)
    settings = provider_of(request).settings
    try:
        return await decoder.receive_bytes(await read_bytes(request, settings), settings)
    except InvalidRequest as error:
        raise as_schema_error(error) from None


def with_body(received: ReceivedBody[T], body: B, headers: Iterable[tuple[bytes, bytes]] = ()) -> ReceivedBody[B]:
    """The same request in canonical words, with more headers for its reply."""
    return ReceivedBody(body=body, num_bytes=received.num_bytes, reply_headers=[*received.reply_headers, *headers])


def as_schema_error(error: InvalidRequest) -> InvalidRequest:
    """422 instead of 400 for what the schema refuses; other refusals as they are."""
    return SchemaError.of(error) if type(error) in _SCHEMA_ERRORS else error


def not_blank(text: str, param: str) -> str:
    """The text without white space around it; raises SchemaError where nothing is left."""
    if not (stripped := text.strip()):
        raise SchemaError(f"'{param}' is empty. Send some text.", param=param)
    return stripped


def refuse_detached(limits: Limits) -> None:
    """Raise SchemaError where the request is to outlive its client: its events here have no numbers."""
    if limits.is_detached:
        raise SchemaError(
            f"The header {DETACH_HEADER} is for the routes below /v1, whose events have numbers. Leave it out.",
            param=DETACH_HEADER,
        )


def content_type_of(request: Request[Any, Any, Any]) -> str:
    """Without its parameters."""
    return str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()


async def read_form(request: Request[Any, Any, Any], settings: ServerSettings) -> dict[str, str]:
    """The fields of a form, the last of a name counting; raises SchemaError for what is none."""
    content_type = request.headers.get("content-type", "")
    data = await read_bytes(request, settings)
    if len(data) > MAX_INLINE_BODY_BYTES:
        return await asyncio.to_thread(parse_form, data, content_type)
    return parse_form(data, content_type)


def parse_form(data: bytes, content_type: str) -> dict[str, str]:
    """The fields of a URL-encoded or multipart body."""
    kind, options = parse_options_header(content_type)
    try:
        if kind.lower() == MULTIPART:
            return _parse_multipart(data, options.get("boundary", ""))
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except (MultipartError, ValueError) as error:
        raise SchemaError(f"The form cannot be read: {clip(str(error))}.") from None
    return dict(pairs)


def _parse_multipart(data: bytes, boundary: str) -> dict[str, str]:
    fields: dict[str, bytearray] = {}
    with PushMultipartParser(boundary, max_segment_count=MAX_FORM_FIELDS) as parser:
        content = bytearray()
        for event in parser.parse(data):
            if isinstance(event, MultipartSegment):
                if event.filename is not None:
                    raise ValueError(f"'{clip(event.name)}' is a file, but needs to be text")
                content = fields[event.name] = bytearray()
            elif event is not None:
                content += event
    return {name: value.decode() for name, value in fields.items()}
