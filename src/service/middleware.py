"""What surrounds every request: who may ask, limits on headers, the request id, the span, the log context, HEAD.

One ASGI callable outside Litestar, so that 404s and refusals pass through it too. Knows nothing of generation.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import propagate, trace

from contracts.errors import QuireError, Unauthenticated, clip
from contracts.settings import ServerSettings
from service.authorization import Authorizer, challenge, is_public
from service.cors import HeaderList, OriginPolicy, is_preflight, preflight_headers
from service.error_responses import encode_error, error_headers
from service.genai import OPERATIONS
from service.hosts import HostPolicy
from service.http_errors import BadFraming, HeadersTooLarge, UriTooLong
from service.key_store import KeyStore
from service.overload_gate import Gate, RefusedUnread

MAX_HEADERS = 64
MAX_HEADER_BYTES = 32 * 1024
MAX_URI_BYTES = 8 * 1024
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_log = structlog.get_logger("service.requests")


class RequestContext:
    """Wraps the application; holds no state of requests.

    `scope["state"]["api_key"]` says who asks to everything inside.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, keys: KeyStore, gate: Gate) -> None:
        """Raises SettingsError for names or origins that are none."""
        self._app = app
        self._gate = gate
        self._hosts = HostPolicy(settings.host, settings.allowed_hosts)
        self._origins = OriginPolicy(settings.cors_origins)
        self._authorizer = Authorizer(keys)
        self._tracer = trace.get_tracer("service")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == ScopeType.WEBSOCKET:
            await send({"type": "websocket.close", "code": 1008, "reason": None})
            return
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = accept_request_id(headers.get(b"x-request-id"))
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "started_s": time.perf_counter()}
        method = str(scope["method"])
        if method == "HEAD":
            scope["method"] = "GET"
        with (
            trace.use_span(self._start_span(method, headers), end_on_exit=True) as span,
            structlog.contextvars.bound_contextvars(request_id=request_id, **trace_ids(span)),
        ):
            reply = _ReplyHeaders(send, request_id, is_head=method == "HEAD")
            try:
                await self._admit(scope, receive, reply)
            except RefusedUnread as error:
                await _send_error(reply, error, {})
            except QuireError as error:
                _log.info("request_refused", path=clip(scope["path"]), status=error.status, code=error.code)
                await _send_error(reply, error, _headers_of(error, scope))
            finally:
                _describe(span, scope, method, request_id, reply.status)

    def _start_span(self, method: str, headers: dict[bytes, bytes]) -> trace.Span:
        """The server span; where nobody records one, its ids all the same, for logs, records and replies."""
        parent = _parent_of(headers)
        span = self._tracer.start_span(method, parent, trace.SpanKind.SERVER)
        context = span.get_span_context()
        caller = trace.get_current_span(parent).get_span_context()
        if context.is_valid and context.span_id != caller.span_id:
            return span
        trace_id = context.trace_id or int.from_bytes(secrets.token_bytes(16))
        own = trace.SpanContext(trace_id, int.from_bytes(secrets.token_bytes(8)), False, trace.TraceFlags(0))
        return trace.NonRecordingSpan(own)

    async def _admit(self, scope: Scope, receive: Receive, reply: _ReplyHeaders) -> None:
        """Let the request in, answer it here, or raise the QuireError that it deserves."""
        headers = scope["headers"]
        check_framing(headers)
        host = self._hosts.check(headers, is_probe=is_public(scope["path"]))
        origin = self._origins.check(headers, host, scope["scheme"])
        reply.extra_headers = self._origins.reply_headers(origin)
        if origin is not None and is_preflight(scope):
            await _send_reply(reply, 204, preflight_headers(headers), b"")
            return
        api_key = self._authorizer.authorize(scope)
        scope["state"]["api_key"] = api_key
        with _named_in_log(api_key.label):
            check_limits(scope)
            if scope.get("method") == "POST" and scope["path"] in OPERATIONS:
                self._gate.check()
            await self._app(scope, receive, reply)


def accept_request_id(given: bytes | None) -> str:
    """The caller's id if it is harmless in logs and headers, else a new one."""
    text = (given or b"").decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else f"req_{secrets.token_hex(16)}"


def trace_ids(span: trace.Span) -> dict[str, str]:
    """What ties a log line to its span; empty where there is no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def check_framing(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a body whose end another server on the way may see elsewhere; the rest of that granian refuses."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and [coding.strip().lower() for coding in codings] != [b"chunked"]:
        raise BadFraming("The transfer-encoding is not one 'chunked'; send the body without other codings.")


def check_limits(scope: Scope) -> None:
    """Refuse more, longer or more ambiguous headers than any honest client sends."""
    uri_len = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if uri_len > MAX_URI_BYTES:
        raise UriTooLong(f"The URI has {uri_len} bytes, the limit is {MAX_URI_BYTES}; shorten it.")
    sizes = [len(name) + len(value) for name, value in scope["headers"]]
    if len(sizes) > MAX_HEADERS:
        raise HeadersTooLarge(f"There are {len(sizes)} headers, the limit is {MAX_HEADERS}; send fewer.")
    size = sum(sizes)
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"The headers have {size} bytes, the limit is {MAX_HEADER_BYTES}; send less.")


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


def _named_in_log(label: str) -> AbstractContextManager[None]:
    """Every log line inside carries the label of the key, where there is one."""
    return structlog.contextvars.bound_contextvars(key=label) if label else nullcontext()


def _headers_of(error: QuireError, scope: Scope) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": challenge(scope)}
    return {"connection": "close"} if isinstance(error, BadFraming) else {}


async def _send_error(send: Send, error: QuireError, extra_headers: dict[str, str]) -> None:
    body = encode_error(error)
    headers = error_headers(error) | extra_headers
    headers |= {"content-type": "application/json", "content-length": str(len(body))}
    await _send_reply(send, error.status, [(name.encode(), value.encode()) for name, value in headers.items()], body)


async def _send_reply(send: Send, status: int, headers: HeaderList, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _ReplyHeaders:
    """Adds our headers to the head of a reply, remembers its status, and drops the body of a reply to HEAD."""

    __slots__ = ("_is_head", "_request_id", "_send", "_started_s", "_trace_headers", "extra_headers", "status")

    def __init__(self, send: Send, request_id: str, *, is_head: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._is_head = is_head
        self._started_s = time.perf_counter()
        self.status: int | None = None
        self.extra_headers: HeaderList = []
        trace_id = trace_ids(trace.get_current_span()).get("trace_id")
        self._trace_headers: HeaderList = [] if trace_id is None else [(b"x-trace-id", trace_id.encode())]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            elapsed_ms = int((time.perf_counter() - self._started_s) * 1000)
            message["headers"] = [
                *message["headers"],
                *self.extra_headers,
                (b"x-request-id", self._request_id.encode()),
                *self._trace_headers,
                (b"openai-processing-ms", str(elapsed_ms).encode()),
            ]
        elif self._is_head and message["type"] == "http.response.body":
            message["body"] = b""
        await self._send(message)
