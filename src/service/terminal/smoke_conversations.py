"""Smoke check of kept conversations: made, continued, read, changed, exported, imported, cut and deleted again."""

from __future__ import annotations

import msgspec

from contracts.checkup import Finding
from contracts.conversations import Conversation, ConversationDetail, ConversationList
from contracts.openai.chat import ChatCompletion
from service.terminal.examination import found
from service.terminal.smoke_session import NotTried, SmokeCheck, SmokeSession, demand

ROOT = "/v1/conversations"
ONE = f"{ROOT}/{{conversation_id}}"
EXPORT = f"GET {ONE}/export"
CUT = f"DELETE {ONE}/messages/{{message_id}}"
TITLE = "quire smoke"


class _File(msgspec.Struct, frozen=True):
    messages: list[msgspec.Raw]


def check_conversations(session: SmokeSession) -> Finding:
    """Leaves nothing behind, whatever fails on the way."""
    kept = session.client.exchange("GET", f"{ROOT}?limit=1")
    if kept.status == 404:
        raise NotTried("The server keeps no conversations (--conversations-db none).")
    made: list[str] = []
    try:
        num_messages = _live_through(session, made)
    finally:
        for conversation_id in made:
            session.call(f"DELETE {ONE}", path=f"{ROOT}/{conversation_id}")
    session.refused(f"GET {ONE}", None, path=f"{ROOT}/{made[0]}", status=404)
    return found("ok", f"Two conversations of {num_messages} messages came and went.", num_messages=num_messages)


def _live_through(session: SmokeSession, made: list[str]) -> int:
    """`made` gets the ids of what must be deleted."""
    first = session.call(f"POST {ROOT}", {"title": TITLE, "model": session.model}).read(Conversation)
    made.append(first.id)
    path = f"{ROOT}/{first.id}"
    listed = session.call(f"GET {ROOT}", query="?q=quire%20smoke&limit=20").read(ConversationList)
    demand(first.id in [one.id for one in listed.data], f"GET {ROOT} does not find a conversation by its title.")
    changed = session.call(f"PATCH {ONE}", {"title": f"{TITLE}, changed"}, path=path).read(Conversation)
    demand(changed.title == f"{TITLE}, changed", f"PATCH {ONE} keeps the old title.")
    num_messages = 0
    if session.card.kind != "base":
        num_messages = _talk(session, first.id)
    detail = session.call(f"GET {ONE}", path=path).read(ConversationDetail)
    demand(len(detail.messages) == num_messages, f"GET {ONE} has {len(detail.messages)} of {num_messages} messages.")
    file = session.call(EXPORT, path=f"{path}/export")
    imported = session.call(f"POST {ROOT}/import", msgspec.Raw(file.content)).read(Conversation)
    made.append(imported.id)
    demand(
        imported.num_messages == num_messages,
        f"POST {ROOT}/import makes {imported.num_messages} of {num_messages} exported messages.",
    )
    if detail.messages:
        last = detail.messages[-1]
        cut = session.call(CUT, path=f"{path}/messages/{last.id}").read(Conversation)
        demand(cut.num_messages < num_messages, f"{CUT} cuts nothing off.")
    return num_messages


def _talk(session: SmokeSession, conversation_id: str) -> int:
    body = {
        "model": session.model,
        "conversation": conversation_id,
        "messages": [{"role": "user", "content": "Good morning."}],
        "max_tokens": 8,
        "temperature": 0,
    }
    session.call("POST /v1/chat/completions", body).read(ChatCompletion)
    return 2


def checks() -> tuple[SmokeCheck, ...]:
    """One, as each step needs the one before."""
    routes = (
        *(f"POST {ROOT}", f"GET {ROOT}", f"POST {ROOT}/import", f"GET {ONE}", f"PATCH {ONE}", f"DELETE {ONE}"),
        *(EXPORT, CUT, "POST /v1/chat/completions"),
    )
    return (SmokeCheck(name="conversations", routes=routes, run=check_conversations),)
