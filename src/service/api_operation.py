"""What the description of the API says of one operation; knows none of them."""

from __future__ import annotations

from typing import Any

import msgspec


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    method: str
    path: str
    operation_id: str
    summary: str
    reply: type[Any] | None
    """None: a page or file."""
    request: type[Any] | None = None
    event: type[Any] | None = None
    """What `stream: true` sends instead of the reply."""
    example: dict[str, Any] | None = None
    errors: dict[int, str] = {}
    parameters: tuple[str, ...] = ()
    """In the path."""
    query: dict[str, dict[str, Any]] = {}
    """Name of a parameter in the query, to its schema."""
    media_type: str = "application/json"
