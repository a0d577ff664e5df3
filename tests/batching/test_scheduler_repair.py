"""A scheduler that finds its books wrong while idle says so, begins new ones and serves on."""

from __future__ import annotations

import pytest

from batching.scheduler import Scheduler
from tests.batching.core_corruptions import CORRUPTIONS, Corruption, repaired_world_serves_on, used_world
from tests.batching.core_world import small_config, small_request


def test_sound_books_are_left_alone() -> None:
    world = used_world()
    assert world.scheduler.repair_idle() is None
    assert world.scheduler.pool.num_cached_blocks == 3
    assert world.scheduler.counters.num_integrity_faults == 0


@pytest.mark.parametrize(("corrupt", "fault"), CORRUPTIONS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_wrong_books_are_noticed_and_begun_anew(corrupt: Corruption, fault: str) -> None:
    assert repaired_world_serves_on(corrupt) == fault


def test_repair_is_refused_while_something_is_live() -> None:
    scheduler = Scheduler(small_config())
    scheduler.submit(small_request("a", [0]), 0.0)
    with pytest.raises(RuntimeError, match="while a request was live"):
        scheduler.repair_idle()
    scheduler.schedule(0.0)
    scheduler.abort("a", 0.0)
    with pytest.raises(RuntimeError, match="or a step in flight"):
        scheduler.repair_idle()
