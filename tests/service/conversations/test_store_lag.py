"""However much the store has to do, the event loop comes round: counted in ticks that its own work made it miss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from contracts.conversations import MAX_STORED_MESSAGES
from service.conversations.access import OpenConversations
from service.conversations.turn_types import Claim
from tests.service.conversations.store_scene import OWNER, imported

TICK_S = 0.02
"""Of the loop's own computing, so that what other processes do to the machine does not count."""
FULL = MAX_STORED_MESSAGES - 2
NUM_ROUNDS = 3
Use = Callable[[OpenConversations, str], Awaitable[object]]


def claim_of(conversation_id: str) -> Claim:
    return Claim(owner=OWNER, conversation_id=conversation_id, holder="h")


async def cut(opened: OpenConversations, one: str) -> None:
    made = await opened.store.restore(OWNER, imported(*["x" * 500] * FULL))
    first = (await opened.store.read(OWNER, made.id)).messages[0].id
    await opened.turns.take(claim_of(made.id))
    await opened.turns.cut(claim_of(made.id), first)


USES: dict[str, Use] = {
    "import": lambda opened, one: opened.store.restore(OWNER, imported(*["x" * 500] * FULL)),
    "read": lambda opened, one: opened.store.read(OWNER, one),
    "cut off": cut,
    "history": lambda opened, one: opened.turns.take(claim_of(one)),
}


async def num_missed_ticks(use: Awaitable[object]) -> int:
    missed = 0

    async def tick() -> None:
        nonlocal missed
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(0.001)
            missed += int((time.thread_time() - began_s) / TICK_S)

    ticking = asyncio.create_task(tick())
    await use
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    return missed


@pytest.mark.parametrize("name", USES)
async def test_loop_comes_round_while_a_full_conversation_is_kept_or_read(
    conversations: OpenConversations, name: str
) -> None:
    """The best of several rounds: a round may meet the collector of garbage."""
    made = await conversations.store.restore(OWNER, imported(*["x" * 500] * FULL))
    rounds = [await num_missed_ticks(USES[name](conversations, made.id)) for _ in range(NUM_ROUNDS)]
    assert min(rounds) == 0
