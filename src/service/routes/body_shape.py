"""Bounds what decoding a large JSON body can cost, before it is decoded.

The decoder holds the interpreter until it is done: 8 MiB of `[],[],[]` takes it 2 s, 8 MiB of one text 7 ms (2 vCPU,
2026-11-21). Counting is a few passes in C, 10 ms at most. Knows no fields.
"""

from __future__ import annotations

from contracts.errors import InvalidRequest

MIN_COUNTED_BYTES = 64 * 1024
"""Below this no body can cost more than one that is let through."""
MAX_STRINGS = 64 * 1024
"""Names and texts; 2048 messages have 8192."""
MAX_CONTAINERS = 64 * 1024
"""Objects and arrays."""
MAX_VALUES = 1024 * 1024
"""Members of all objects and arrays, which can be as many as the token ids of a prompt."""


def check_shape(body: bytes) -> None:
    """Raise InvalidRequest where a body of JSON has more strings, containers or values than any honest one."""
    if len(body) < MIN_COUNTED_BYTES:
        return
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    num_strings = bare.count(b'"') // 2
    if num_strings > MAX_STRINGS:
        raise _too_many("strings", num_strings, MAX_STRINGS)
    outside = b"".join(bare.split(b'"')[::2])
    num_containers = outside.count(b"[") + outside.count(b"{")
    if num_containers > MAX_CONTAINERS:
        raise _too_many("objects and arrays", num_containers, MAX_CONTAINERS)
    num_values = outside.count(b",")
    if num_values > MAX_VALUES:
        raise _too_many("values", num_values, MAX_VALUES)


def _too_many(what: str, found: int, limit: int) -> InvalidRequest:
    return InvalidRequest(f"The request body has {found} {what}, the limit is {limit}. Send several smaller requests.")
