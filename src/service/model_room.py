"""Which loaded models must go so that another one fits: the least recently used first. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Tenancy(msgspec.Struct, frozen=True, kw_only=True):
    """One model that is loaded or on its way."""

    alias: str
    memory_bytes: int
    """Of the budget; 0 where nobody knows."""
    is_default: bool
    must_stay: bool
    """It cannot be drained yet: it is being loaded, or whoever waited for it has had no time to use it."""
    is_busy: bool
    """Requests wait or run on it: it goes only if the idle ones do not suffice, and after they have ended."""
    last_used_s: float


def choose_victims(
    loaded: Sequence[Tenancy], *, need_bytes: int, budget_bytes: int, max_models: int | None
) -> list[str] | None:
    """Aliases to drain, in order; None where even draining all that can go leaves too little room.

    Idle ones before busy ones, the default last, among equals the least recently used first. One that was chosen early
    but turns out not to be needed stays.
    """
    order = sorted(
        (one for one in loaded if not one.must_stay), key=lambda one: (one.is_busy, one.is_default, one.last_used_s)
    )
    used_bytes = sum(one.memory_bytes for one in loaded)
    num_loaded = len(loaded)
    victims: list[Tenancy] = []

    def fits() -> bool:
        has_place = max_models is None or num_loaded < max_models
        return has_place and used_bytes + need_bytes <= budget_bytes

    for one in order:
        if fits():
            break
        victims.append(one)
        used_bytes -= one.memory_bytes
        num_loaded -= 1
    if not fits():
        return None
    return [one.alias for one in _needed(victims, budget_bytes - need_bytes - used_bytes, max_models, num_loaded)]


def _needed(victims: list[Tenancy], spare_bytes: int, max_models: int | None, num_loaded: int) -> list[Tenancy]:
    """Without those that fit beside the new one after all; the last of them in the order stays first."""
    kept = []
    for one in reversed(victims):
        has_place = max_models is None or num_loaded + 1 < max_models
        if has_place and one.memory_bytes <= spare_bytes:
            spare_bytes -= one.memory_bytes
            num_loaded += 1
        else:
            kept.append(one)
    return kept[::-1]
