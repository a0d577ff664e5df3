"""Turns every failure into the one error body, its status and its headers; knows nothing of routes or engines.

A caller sees the words of a QuireError; of any other exception only that it happened.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from contracts.errors import BodyTooLarge, InvalidRequest, QuireError, clip
from contracts.openai.common import ErrorBody, ErrorObject
from service.http_errors import BadFraming, ClientGone, InternalError, MethodNotAllowed, NotFound

_log = structlog.get_logger("service.errors")

INTERNAL_ERROR = "The server failed on this request; the log has the cause under the reply's x-request-id."


def encode_error(error: QuireError) -> bytes:
    """The JSON of `{"error": {...}, "detail": ..., "status_code": ...}`."""
    param = None if error.param is None else clip(error.param)
    return msgspec.json.encode(
        ErrorBody(
            error=ErrorObject(message=error.message, type=error.type, param=param, code=error.code),
            detail=error.message,
            status_code=error.status,
        )
    )


def error_headers(error: QuireError) -> dict[str, str]:
    """Headers that tell OpenAI's clients whether and when to retry."""
    headers = {"cache-control": "no-store"}
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.retry_after_s is not None or error.should_retry:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    return headers


def reply_to_error(error: QuireError, extra_headers: dict[str, str] | None = None) -> Response[bytes]:
    """A complete reply."""
    return Response(
        content=encode_error(error),
        status_code=error.status,
        media_type=MediaType.JSON,
        headers=error_headers(error) | (extra_headers or {}),
    )


def handle_quire_error(request: Request[Any, Any, Any], error: QuireError) -> Response[bytes]:
    """Litestar handler for our own errors."""
    _log.info("request_refused", path=clip(request.url.path), status=error.status, code=error.code, param=error.param)
    return reply_to_error(error)


def handle_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar handler for what the router raises; keeps headers such as Allow."""
    return reply_to_error(_from_http_exception(request, error), dict(error.headers or {}))


def handle_client_gone(request: Request[Any, Any, Any], error: ClientGone) -> Response[bytes]:
    """Litestar handler: end the exchange, in words for a client that is still there."""
    reason = BadFraming("The body broke off before its end, or its chunks are malformed; send it whole.")
    return reply_to_error(reason, {"connection": "close"})


def handle_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Top handler: log the cause, reveal nothing."""
    _log.error("request_failed", path=clip(request.url.path), exc_info=error)
    return reply_to_error(InternalError(INTERNAL_ERROR))


def _from_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> QuireError:
    route = f"{request.method} {clip(request.url.path)}"
    if error.status_code == 404:
        return NotFound(f"There is no {route}; see /docs for what is served.")
    if error.status_code == 405:
        allowed = {name.lower(): value for name, value in (error.headers or {}).items()}.get("allow", "another method")
        return MethodNotAllowed(f"{route} is not allowed; use {allowed}.")
    if error.status_code == 413:
        return BodyTooLarge("The request body is over the size limit.")
    if error.status_code >= 500:
        return InternalError(INTERNAL_ERROR)
    return InvalidRequest("The request cannot be read.")
