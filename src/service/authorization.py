"""Decides what a request may do from its path and its Authorization header: nothing without a key, unless listed here.

The tables are the whole truth about paths; a path that nobody has heard of needs a key as well. Knows no routes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Final

from litestar.types import Scope

from contracts.errors import InsufficientScope, Unauthenticated
from contracts.generation import Tenant
from service.api_keys import ANONYMOUS, ApiKey, KeyScope
from service.key_store import KeyStore

PUBLIC_PATHS: Final = frozenset({"/health/live", "/healthz", "/health/ready", "/readyz"})
"""Exact paths that answer without a key: whoever restarts or routes around the server asks them."""

SCOPE_OF_PREFIX: Final[Mapping[str, KeyScope | None]] = {
    "admin": "admin",
    "metrics": "metrics",
    "stats": "metrics",
    "health": None,
    "queue": "metrics",
}
"""First part of a path, to the scope that a key needs for it and all below it; None: any key will do."""

SCOPE_OF_ROUTE: Final[Mapping[tuple[str, ...], KeyScope]] = {("v1", "live"): "metrics"}
"""First two parts of a path below /v1, to the scope that a key needs for it and all below it."""

CHANGED_BY_ADMINS: Final = (("v1", "models"), ("api", "v1", "chat", "switch-model"), ("api", "v1", "load-model"))
"""First parts of a path below which everything but reading needs the scope 'admin'."""
HEALTH_OF_OLDER_CLIENTS: Final = ("api", "v1", "health")
"""Any key will do, as for /health."""
READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

DEFAULT_SCOPE: Final[KeyScope] = "infer"

MAX_AUTHORIZATION_BYTES = 4096
_REFUSAL = "This server needs an API key: send it as 'authorization: Bearer KEY'."
_NOBODY: Final = ApiKey(label="", scopes=frozenset(), tenant=Tenant())


class Authorizer:
    """Looks at the keys of this moment for every request."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    def authorize(self, scope: Scope) -> ApiKey:
        """Who asks. Raises Unauthenticated, in the same words whatever is wrong, or InsufficientScope."""
        if not self._keys.is_enabled:
            return ANONYMOUS
        path = scope["path"]
        if is_public(path):
            return _NOBODY
        presented = presented_key(scope["headers"])
        api_key = None if presented is None else self._keys.find(presented)
        if api_key is None:
            raise Unauthenticated(_REFUSAL)
        needed = needed_scope(path, str(scope.get("method", "GET")))
        if needed is not None and needed not in api_key.scopes:
            raise InsufficientScope(
                f"The key '{api_key.label}' lacks the scope '{needed}' that this path needs. Use a key that has it."
            )
        return api_key


def is_public(path: str) -> bool:
    """Whether the path, percent-decoded, answers without a key."""
    return path in PUBLIC_PATHS


def needed_scope(path: str, method: str = "GET") -> KeyScope | None:
    """The scope that a key needs for a path, percent-decoded; empty parts are left out as the router does."""
    parts = tuple(part for part in path.split("/") if part)
    if method not in READING_METHODS and any(parts[: len(first)] == first for first in CHANGED_BY_ADMINS):
        return "admin"
    if parts == HEALTH_OF_OLDER_CLIENTS:
        return None
    if (scope := SCOPE_OF_ROUTE.get(parts[:2])) is not None:
        return scope
    return SCOPE_OF_PREFIX.get(parts[0] if parts else "", DEFAULT_SCOPE)


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key of a single Bearer header, or the password of a single Basic one; None for everything else."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1 or len(values[0]) > MAX_AUTHORIZATION_BYTES:
        return None
    scheme, _, credentials = values[0].partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip(b" ")
    return _password(credentials.strip(b" ")) if scheme.lower() == b"basic" else None


def challenge(scope: Scope) -> str:
    """The WWW-Authenticate header of a refusal: browsers that open a page ask their user for the key."""
    accepts = b",".join(value for name, value in scope["headers"] if name == b"accept")
    is_page = scope.get("method") == "GET" and b"text/html" in accepts
    return 'Basic realm="quire"' if is_page else "Bearer"


def _password(credentials: bytes) -> bytes | None:
    try:
        _, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon else None
