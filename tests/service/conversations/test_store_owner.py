"""Whatever the store asks of conversations and messages names their owner, and another owner's id finds nothing."""

from __future__ import annotations

import re
from typing import Any

from contracts.errors import ConversationNotFound
from service.conversations.access import OpenConversations
from service.conversations.turn_types import Claim
from tests.service.conversations.store_faults import watched
from tests.service.conversations.store_scene import (
    FIRST,
    HOLDER,
    OPERATIONS,
    OWNER,
    REPLY,
    Operation,
    Scene,
    contents,
    set_up,
)

IS_OURS = re.compile(r"\bquire_(conversation|message)\b")
IS_NEW = re.compile(r"\s*INSERT INTO quire_(conversation|message)\b")
NAMES_OWNER = re.compile(r"\bquire_conversation\.owner = ")


def values_of(parameters: Any) -> list[Any]:
    return list(parameters.values()) if isinstance(parameters, dict) else list(parameters)


def without_owner(statements: list[tuple[str, Any]]) -> list[str]:
    """Statements on our tables, but for new rows, that could reach somebody else's."""
    return [
        statement
        for statement, parameters in statements
        if IS_OURS.search(statement)
        and not IS_NEW.match(statement)
        and not (NAMES_OWNER.search(statement) and OWNER in values_of(parameters))
    ]


async def statements_of(conversations: OpenConversations, operation: Operation) -> list[tuple[str, Any]]:
    scene = await set_up(conversations)
    with watched(conversations) as seen:
        await operation(scene)
    return seen


async def test_every_statement_names_the_owner(conversations: OpenConversations) -> None:
    await set_up(conversations)
    seen = {name: await statements_of(conversations, use) for name, use in OPERATIONS.items()}
    assert {name for name, asked in seen.items() if not any("quire_" in one for one, _ in asked)} == set()
    assert {name: wrong for name, asked in seen.items() if (wrong := without_owner(asked))} == {}


def test_statement_that_names_no_owner_would_be_found() -> None:
    assert without_owner([("DELETE FROM quire_message WHERE quire_message.id = ?", ("msg_1",))]) != []
    assert without_owner([("SELECT 1 FROM quire_conversation WHERE quire_conversation.owner = ?", ("you",))]) != []


async def test_claim_of_another_owner_writes_nothing(conversations: OpenConversations) -> None:
    """Though it has the right id and even the lease."""
    scene = await set_up(conversations)
    before = await contents(scene)
    turns = conversations.turns
    stolen = Scene(conversations, Claim(owner="you", conversation_id=scene.id, holder=HOLDER), scene.first_message_id)
    uses = [turns.post(stolen.claim, FIRST, None), turns.finish(stolen.claim, 2, REPLY)]
    uses += [turns.cut(stolen.claim, stolen.first_message_id), turns.take(stolen.claim)]  # type: ignore[list-item]
    outcomes = [await outcome(use) for use in uses]
    assert outcomes == [ConversationNotFound] * 4
    assert await outcome(turns.mark(stolen.claim, 2, "engine_error")) is None
    assert await contents(scene) == before


async def outcome(use: Any) -> type[Exception] | None:
    try:
        await use
    except ConversationNotFound as error:
        return type(error)
    return None
