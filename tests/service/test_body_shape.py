"""What a body may cost is bounded before it is decoded (S11), by counts that a plain decoder agrees with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidRequest
from service.routes import body_shape
from service.routes.body_shape import MAX_CONTAINERS, MAX_STRINGS, MAX_VALUES, check_shape

TEXT = st.text(alphabet=st.sampled_from(['"', "\\", "[", "{", ",", "a", "é"]), max_size=5)
JSON = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def strings_and_containers(value: Any) -> Iterator[str]:
    """What a plain walk over the decoded value meets."""
    if isinstance(value, str):
        yield "string"
    if isinstance(value, dict | list):
        yield "container"
        for item in value:
            yield from strings_and_containers(item)
    if isinstance(value, dict):
        for item in value.values():
            yield from strings_and_containers(item)


def is_refused(body: bytes) -> bool:
    try:
        check_shape(body)
    except InvalidRequest:
        return True
    return False


@given(value=JSON, limit=st.integers(0, 8), is_ascii=st.booleans())
def test_counts_are_those_of_a_plain_walk(value: Any, limit: int, is_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode()
    found = list(strings_and_containers(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_shape, "MIN_COUNTED_BYTES", 0)
        patch.setattr(body_shape, "MAX_STRINGS", limit)
        assert is_refused(body) == (found.count("string") > limit or found.count("container") > MAX_CONTAINERS)
        patch.setattr(body_shape, "MAX_STRINGS", MAX_STRINGS)
        patch.setattr(body_shape, "MAX_CONTAINERS", limit)
        assert is_refused(body) == (found.count("container") > limit)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"logit_bias":{' + b'"1":1,' * 100_000, "strings"),
        (b'{"messages":[' + b'{"role":"user","content":""},' * 100_000, "strings"),
        (b'{"tools":[' + b"[]," * 100_000, "objects and arrays"),
        (b'{"tools":[' + b"{}," * 100_000, "objects and arrays"),
        (b'{"prompt":[' + b"1," * 4_000_000, "values"),
    ],
)
def test_body_of_countless_pieces_is_refused_with_the_limit(body: bytes, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what) as caught:
        check_shape(body)
    assert str({"strings": MAX_STRINGS, "values": MAX_VALUES}.get(what, MAX_CONTAINERS)) in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":"' + b'\\"' * 1_000_000 + b'"}',
        b'{"prompt":"' + b"[{,\\\\" * 1_000_000 + b'"}',
        b'{"prompt":[' + b"1," * 1_000_000 + b"1]}",
        b'{"messages":[' + b'{"role":"user","content":[{"type":"text","text":""}]},' * 2048 + b"]}",
    ],
)
def test_large_honest_body_passes(body: bytes) -> None:
    check_shape(body)
