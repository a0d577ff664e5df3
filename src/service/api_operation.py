"""What the description of the API says of one operation; knows none of them."""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.openai.common import ErrorBody


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    method: str
    path: str
    operation_id: str
    summary: str
    reply: type[Any] | None
    """None: a page or file."""
    request: type[Any] | None = None
    events: tuple[type[Any], ...] = ()
    """What `stream: true` sends instead of the reply; without a reply there is nothing else."""
    example: dict[str, Any] | None = None
    errors: dict[int, str] = {}
    parameters: tuple[str, ...] = ()
    """In the path."""
    query: dict[str, dict[str, Any]] = {}
    """Name of a parameter in the query, to its schema."""
    headers: list[dict[str, Any]] = []
    """Parameters in the head of the request."""
    media_type: str = "application/json"
    status: int = 200
    """Of success."""
    request_media: tuple[str, ...] = ("application/json",)
    is_body_required: bool = True
    error: type[Any] = ErrorBody
