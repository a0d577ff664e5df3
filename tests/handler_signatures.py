"""Litestar parses the signature of every handler anew for each application, and tests make thousands of these.

What it finds depends on the function and on the names that its annotations may use, so it is kept here. Where Litestar
has moved what this takes hold of, the tests are slower and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import pytest
from litestar.utils.signature import ParsedSignature


@contextmanager
def parsed_once() -> Iterator[None]:
    """Within, a handler's signature is parsed the first time that it is asked for."""
    parse: Callable[[Any, dict[str, Any]], ParsedSignature] = ParsedSignature.from_fn
    known: dict[tuple[Any, frozenset[tuple[str, int]]], ParsedSignature] = {}
    kept: list[Any] = []

    def from_fn(fn: Any, signature_namespace: dict[str, Any]) -> ParsedSignature:
        key = _written(fn), frozenset((name, id(value)) for name, value in signature_namespace.items())
        if key not in known:
            kept.append(signature_namespace.copy())  # an id stands for a value only as long as that lives
            known[key] = parse(fn, signature_namespace)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParsedSignature, "from_fn", staticmethod(from_fn))
        yield


def _written(fn: Any) -> Any:
    """A function as it was written: the same for all that are made where it stands, if they differ in nothing else."""
    is_plain = isinstance(fn, FunctionType) and fn.__defaults__ is None and fn.__kwdefaults__ is None
    return fn.__code__ if is_plain else fn
