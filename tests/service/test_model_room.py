"""Which loaded models go for another one: the choice equals that of trying every set of them."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model_room import Tenancy, choose_victims


def tenancy(alias: str, memory_bytes: int = 1, **facts: object) -> Tenancy:
    """Idle, not the default, free to go, last used at the start."""
    given: dict[str, object] = {"is_default": False, "must_stay": False, "is_busy": False, "last_used_s": 0.0} | facts
    return Tenancy(alias=alias, memory_bytes=memory_bytes, **given)  # type: ignore[arg-type]


def choose_slowly(
    loaded: list[Tenancy], *, need_bytes: int, budget_bytes: int, max_models: int | None
) -> list[str] | None:
    """Of all sets whose going makes room, the one that spares whoever is worth most, then the next, and so on."""
    free = [one for one in loaded if not one.must_stay]
    by_worth = sorted(free, key=lambda one: (one.is_busy, one.is_default, one.last_used_s))
    rank = {one.alias: place for place, one in enumerate(by_worth)}
    fitting = []
    for gone in chain.from_iterable(combinations(by_worth, count) for count in range(len(by_worth) + 1)):
        left = [one for one in loaded if one not in gone]
        has_place = max_models is None or len(left) < max_models
        if has_place and sum(one.memory_bytes for one in left) + need_bytes <= budget_bytes:
            fitting.append([one.alias for one in gone])
    return min(fitting, key=lambda aliases: sum(2 ** rank[alias] for alias in aliases), default=None)


loads = st.lists(
    st.builds(
        tenancy,
        st.sampled_from("abcdefg"),
        st.integers(0, 6),
        must_stay=st.booleans(),
        is_busy=st.booleans(),
        is_default=st.booleans(),
        last_used_s=st.floats(0, 9),
    ),
    max_size=6,
    unique_by=(lambda one: one.alias, lambda one: one.last_used_s),
)


@given(
    loaded=loads,
    need_bytes=st.integers(0, 12),
    budget_bytes=st.integers(0, 24),
    max_models=st.none() | st.integers(1, 6),
)
def test_choice_is_that_of_trying_every_set(
    loaded: list[Tenancy], need_bytes: int, budget_bytes: int, max_models: int | None
) -> None:
    chosen = choose_victims(loaded, need_bytes=need_bytes, budget_bytes=budget_bytes, max_models=max_models)
    assert chosen == choose_slowly(loaded, need_bytes=need_bytes, budget_bytes=budget_bytes, max_models=max_models)


@given(loaded=loads, budget_bytes=st.integers(0, 24))
def test_where_nobody_must_stay_whatever_fits_alone_finds_room(loaded: list[Tenancy], budget_bytes: int) -> None:
    free = [tenancy(one.alias, one.memory_bytes, is_busy=one.is_busy) for one in loaded]
    assert choose_victims(free, need_bytes=budget_bytes, budget_bytes=budget_bytes, max_models=1) is not None


OLD, NEW = tenancy("old", 4, last_used_s=1.0), tenancy("new", 4, last_used_s=2.0)


@pytest.mark.parametrize(
    ("loaded", "need_bytes", "max_models", "victims"),
    [
        pytest.param([NEW, OLD], 2, None, [], id="there is room"),
        pytest.param([NEW, OLD], 4, None, ["old"], id="the least recently used goes"),
        pytest.param([NEW, OLD], 8, None, ["old", "new"], id="as many as are needed"),
        pytest.param([NEW, OLD], 0, 2, ["old"], id="places are counted as well"),
        pytest.param([NEW, OLD], 11, None, None, id="larger than the budget"),
        pytest.param([tenancy("d", 4, is_default=True), NEW], 4, None, ["new"], id="the default goes last"),
        pytest.param([tenancy("b", 4, is_busy=True), NEW], 4, None, ["new"], id="an idle one goes before a busy one"),
        pytest.param(
            [tenancy("b", 4, is_busy=True), tenancy("d", 4, is_default=True)], 4, None, ["d"], id="even the default"
        ),
        pytest.param([tenancy("s", 8, must_stay=True)], 4, None, None, id="nothing can go yet"),
        pytest.param([tenancy("s", 8, must_stay=True)], 2, 1, None, id="no place yet"),
        pytest.param([tenancy("tiny", 1), NEW], 8, None, ["new"], id="what is too small to help stays"),
        pytest.param([], 10, 1, [], id="alone"),
    ],
)
def test_examples(loaded: list[Tenancy], need_bytes: int, max_models: int | None, victims: list[str] | None) -> None:
    assert choose_victims(loaded, need_bytes=need_bytes, budget_bytes=10, max_models=max_models) == victims
