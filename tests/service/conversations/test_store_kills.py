"""Writers that are killed at any moment leave a whole database with everything that they were told is kept."""

from __future__ import annotations

import pytest

from service.conversations.access import Conversations
from service.conversations.location import Location
from tests.service.conversations.killed_writer import Told, running_killer
from tests.service.conversations.store_scene import wrong_conversations


async def what_is_wrong(location: Location, told: Told, ids: set[str]) -> list[str]:
    """By a process of its own that opens what the killed one has left, as the next start does."""
    owner = Conversations(location)
    opened = await owner.open()
    wrong = await wrong_conversations(opened) + await told.missing(opened, ids)
    await owner.close()
    return wrong


async def kill_again_and_again(location: Location, num_kills: int) -> tuple[Told, list[str]]:
    told, wrong = Told(), []
    with running_killer(location, seed=num_kills) as killer:
        for number in range(num_kills):
            acks = killer.kill_one()
            told.hear(acks)
            wrong += [f"kill {number}: {one}" for one in await what_is_wrong(location, told, {ack[1] for ack in acks})]
    return told, wrong


@pytest.mark.parametrize("num_kills", [12, pytest.param(1000, marks=pytest.mark.slow)])
async def test_whatever_was_acknowledged_outlives_the_kill_of_its_writer(location: Location, num_kills: int) -> None:
    told, wrong = await kill_again_and_again(location, num_kills)
    assert wrong == []
    assert await what_is_wrong(location, told, set(told.texts)) == []
    assert len(told.texts) > num_kills // 2
