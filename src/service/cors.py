"""Which pages may use this server from a browser, and what browsers are told of it (CORS).

Owns the Origin header and the replies to preflights; origins are literal, never patterns, and never get credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from contracts.errors import SettingsError, clip
from service.hosts import split_list
from service.http_errors import ForbiddenOrigin

if TYPE_CHECKING:  # the supervisor checks origins too, and has no litestar
    from litestar.types import Scope

ALLOWED_METHODS: Final = "GET, HEAD, POST, PATCH, DELETE"
ALLOWED_HEADERS: Final = (
    "authorization",
    "content-type",
    "x-request-timeout",
    "x-request-id",
    "x-quire-detach",
    "idempotency-key",
    "last-event-id",
    "openai-organization",
    "openai-project",
    "traceparent",
    "tracestate",
)
EXPOSED_HEADERS: Final = "x-request-id, retry-after"
PREFLIGHT_MAX_AGE_S: Final = 600

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_CLIENT_HEADER = re.compile(r"x-stainless-[a-z-]{1,40}", re.ASCII)

Headers = Iterable[tuple[bytes, bytes]]
HeaderList = list[tuple[bytes, bytes]]


class OriginPolicy:
    """The server's own pages, and the origins that the operator lists."""

    def __init__(self, cors_origins: str) -> None:
        """Raises SettingsError for an entry that is no origin."""
        self._allowed = frozenset(_read_entry(entry) for entry in split_list(cors_origins))

    def check(self, headers: Headers, host: str, scheme: str) -> str | None:
        """The listed origin that sent the request; None for the server's own page and for what is no page.

        `host` is the Host header. Raises ForbiddenOrigin.
        """
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if not origins:
            return None
        if len(origins) == 1 and origins[0] in self._allowed:
            return origins[0]
        own = {f"{known}://{host}" for known in (("https",) if scheme == "https" else ("http", "https"))}
        if len(origins) == 1 and host and origins[0] in own:
            return None
        raise ForbiddenOrigin(
            f"Origin '{clip(', '.join(origins))}' may not use this server; send the request from its own page, or "
            "list the origin in --cors-origins."
        )

    def reply_headers(self, origin: str | None) -> HeaderList:
        """What every reply says: who may read it, and that it depends on who asks."""
        if not self._allowed:
            return []
        if origin is None:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED_HEADERS.encode()),
            (b"vary", b"Origin"),
        ]


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks for leave before the request proper; such a request carries no key."""
    return scope.get("method") == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in scope["headers"]
    )


def preflight_headers(headers: Headers) -> HeaderList:
    """The leave that a listed origin gets, whatever it asks for; OpenAI's client adds x-stainless headers."""
    wanted = b",".join(value for name, value in headers if name == b"access-control-request-headers").decode("latin-1")
    asked = [name.strip().lower() for name in wanted[:4096].split(",")]
    allowed = [*ALLOWED_HEADERS, *dict.fromkeys(name for name in asked if _CLIENT_HEADER.fullmatch(name))]
    return [
        (b"access-control-allow-methods", ALLOWED_METHODS.encode()),
        (b"access-control-allow-headers", ", ".join(allowed).encode()),
        (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
        (b"vary", b"Access-Control-Request-Headers"),
    ]


def _read_entry(entry: str) -> str:
    if not _ORIGIN.fullmatch(entry.lower()):
        raise SettingsError(
            f"--cors-origins holds {clip(entry)!r}, which is no origin: scheme, host and perhaps a port, without path "
            "or pattern; an example is https://chat.example.org."
        )
    return entry.lower()
