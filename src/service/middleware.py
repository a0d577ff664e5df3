"""What surrounds every request: limits on headers, who may ask, the request id, the span, the log context, HEAD.

One ASGI callable outside Litestar, so that 404s and refusals pass through it too. Knows nothing of generation.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import propagate, trace

from contracts.errors import InvalidRequest, QuireError, clip
from service.error_responses import ForbiddenOrigin, HeadersTooLarge, UriTooLong, encode_error, error_headers

MAX_HEADERS = 64
MAX_HEADER_BYTES = 32 * 1024
MAX_URI_BYTES = 8 * 1024
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class RequestContext:
    """Wraps the application; holds no state of requests."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._is_loopback = _is_loopback(host)
        self._host = host
        self._tracer = trace.get_tracer("service")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = accept_request_id(headers.get(b"x-request-id"))
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "started_s": time.perf_counter()}
        method = str(scope["method"])
        if method == "HEAD":
            scope["method"] = "GET"
        reply = _ReplyHeaders(send, request_id, is_head=method == "HEAD")
        with (
            self._tracer.start_as_current_span(method, _parent_of(headers), trace.SpanKind.SERVER) as span,
            structlog.contextvars.bound_contextvars(request_id=request_id),
        ):
            try:
                check_limits(scope)
                if self._is_loopback:
                    check_origin(headers, self._host)
                await self._app(scope, receive, reply)
            except QuireError as error:
                await _send_error(reply, error)
            finally:
                _describe(span, scope, method, request_id, reply.status)


def accept_request_id(given: bytes | None) -> str:
    """The caller's id if it is harmless in logs and headers, else a new one."""
    text = (given or b"").decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else f"req_{secrets.token_hex(16)}"


def check_limits(scope: Scope) -> None:
    """Refuse more, longer or more ambiguous headers than any honest client sends."""
    uri_len = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if uri_len > MAX_URI_BYTES:
        raise UriTooLong(f"The URI has {uri_len} bytes, the limit is {MAX_URI_BYTES}; shorten it.")
    sizes = [len(name) + len(value) for name, value in scope["headers"]]
    if len(sizes) > MAX_HEADERS:
        raise HeadersTooLarge(f"There are {len(sizes)} headers, the limit is {MAX_HEADERS}; send fewer.")
    if sum(name == b"host" for name, _ in scope["headers"]) > 1:
        raise InvalidRequest("There are several Host headers; send one.")
    size = sum(sizes)
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"The headers have {size} bytes, the limit is {MAX_HEADER_BYTES}; send less.")


def check_origin(headers: dict[bytes, bytes], bound_host: str) -> None:
    """On a loopback address, refuse what pages elsewhere make a browser send (DNS rebinding, cross-site posts)."""
    host = headers.get(b"host", b"").decode("latin-1")
    name = _host_name(f"//{host}")
    if name is None or not (_is_loopback(name) or name == bound_host):
        raise ForbiddenOrigin(f"Host '{clip(host)}' is not a name of this server; use localhost or 127.0.0.1.")
    origin = headers.get(b"origin")
    if origin is None:
        return
    text = origin.decode("latin-1")
    if urlsplit_or_none(text) != host:
        raise ForbiddenOrigin(f"Origin '{clip(text)}' may not use this server; send the request from its own page.")


def urlsplit_or_none(origin: str) -> str | None:
    """The host and port of an origin; None for `null` and for what is no URL."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _host_name(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        return parts.hostname
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parent_of(headers: dict[bytes, bytes]) -> Any:
    """The caller's trace context, if it sent one."""
    traceparent = headers.get(b"traceparent")
    if traceparent is None:
        return None
    carrier = {"traceparent": traceparent.decode("latin-1")}
    if tracestate := headers.get(b"tracestate"):
        carrier["tracestate"] = tracestate.decode("latin-1")
    return propagate.extract(carrier)


def _describe(span: trace.Span, scope: Scope, method: str, request_id: str, status: int | None) -> None:
    """Name the span by its route template, never by the raw path, and set its outcome."""
    if not span.is_recording():
        return
    route: str | None = scope.get("path_template")
    span.update_name(f"{method} {route}" if route else method)
    span.set_attribute("http.request.method", method)
    span.set_attribute("quire.request_id", request_id)
    if route:
        span.set_attribute("http.route", route)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(trace.StatusCode.ERROR)


async def _send_error(send: Send, error: QuireError) -> None:
    body = encode_error(error)
    headers = error_headers(error) | {"content-type": "application/json", "content-length": str(len(body))}
    start: Any = {
        "type": "http.response.start",
        "status": error.status,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _ReplyHeaders:
    """Adds our headers to the head of a reply, remembers its status, and drops the body of a reply to HEAD."""

    __slots__ = ("_is_head", "_request_id", "_send", "_started_s", "status")

    def __init__(self, send: Send, request_id: str, *, is_head: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._is_head = is_head
        self._started_s = time.perf_counter()
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            elapsed_ms = int((time.perf_counter() - self._started_s) * 1000)
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self._request_id.encode()),
                (b"openai-processing-ms", str(elapsed_ms).encode()),
            ]
        elif self._is_head and message["type"] == "http.response.body":
            message["body"] = b""
        await self._send(message)
