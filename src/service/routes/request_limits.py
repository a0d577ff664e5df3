"""What a request may use, from its key and its headers; knows nothing of bodies."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from litestar import Request
from opentelemetry import trace

from contracts.errors import InvalidValue, clip
from service.api_keys import ApiKey
from service.conversations.turn_types import KEY_NAME
from service.translate import Limits

TIMEOUT_HEADER: Final = "x-request-timeout"
DETACH_HEADER: Final = "x-quire-detach"
DETACH_WORD: Final = "keep"
MAX_TIMEOUT_S: Final = 86_400.0
MAX_KEY_LEN: Final = 255
_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY_LEN}}}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,5}(\.[0-9]{1,9})?", re.ASCII)


def limits_of(request: Request[Any, Any, Any], limits: Limits) -> Limits:
    """The server's limits, narrowed to what the key and the headers allow; raises InvalidValue."""
    api_key: ApiKey = request.scope["state"]["api_key"]
    wanted_s = read_timeout(request.headers.getall(TIMEOUT_HEADER, []))
    bounds_s = [bound_s for bound_s in (wanted_s, limits.request_timeout_s) if bound_s is not None]
    return msgspec.structs.replace(
        limits,
        request_timeout_s=min(bounds_s, default=None),
        tenant=api_key.tenant,
        cache_salt=api_key.cache_salt,
        client_request_id=request.scope["state"]["request_id"],
        traceparent=current_traceparent(),
        is_detached=read_detach(request.headers.getall(DETACH_HEADER, [])),
    )


def current_traceparent() -> str:
    """W3C trace context of the span that runs now; empty where there is none."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def read_detach(values: list[str]) -> bool:
    """Whether the request is to go on when its client is gone; raises InvalidValue."""
    if not values:
        return False
    if values != [DETACH_WORD]:
        raise InvalidValue(
            f"The header {DETACH_HEADER} is '{clip(', '.join(values))}'; its one value is '{DETACH_WORD}'.",
            param=DETACH_HEADER,
        )
    return True


def read_key(values: list[str]) -> str | None:
    """The idempotency key; None where there is none. Raises InvalidValue."""
    if not values:
        return None
    text = ", ".join(values)
    if not _KEY.fullmatch(text):
        raise InvalidValue(
            f"The header {KEY_NAME} has {len(text)} characters, but needs 1 to {MAX_KEY_LEN} visible ones of ASCII "
            "without spaces.",
            param=KEY_NAME,
        )
    return text


def read_timeout(values: list[str]) -> float | None:
    """Seconds from the values of the header; None where there is none. Raises InvalidValue."""
    if not values:
        return None
    text = ", ".join(values)
    seconds = float(text) if _SECONDS.fullmatch(text) else 0.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise InvalidValue(
            f"The header {TIMEOUT_HEADER} is '{clip(text)}', but needs seconds above 0 and at most "
            f"{MAX_TIMEOUT_S:g}, such as 30 or 2.5.",
            param=TIMEOUT_HEADER,
        )
    return seconds
