"""A seeded bug and how to live with it for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

Method = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """One bug: `change` makes the broken `attribute` of `owner` from the right one."""

    name: str
    owner: type | ModuleType
    attribute: str
    change: Callable[[Any], Any]


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Live with one bug."""
    original = vars(mutant.owner)[mutant.attribute]
    setattr(mutant.owner, mutant.attribute, mutant.change(original))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.attribute, original)


def always(result: Any) -> Callable[[Any], Any]:
    """A method that does nothing and returns `result`, or a fresh list where that is `list`."""
    return lambda original: lambda self, *args, **options: [] if result is list else result
