"""What one turn of a conversation reads and writes: the lease, the history, the message, the reply.

Each call is one transaction. The lease fences: what a process writes after another has taken the conversation over is
refused. Knows no engine and no templates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, extract, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import MAX_STORED_MESSAGES, MAX_TEXT_BYTES, Conversation
from contracts.errors import ConversationBusy, ConversationFull, clip
from service.clocks import unix_ms
from service.conversations.database import Database
from service.conversations.rows import WITHOUT_OBJECTS, all_rows, find_row, messages_of, new_id, to_conversation
from service.conversations.tables import ConversationRow, LeaseRow, MessageRow
from service.conversations.texts import default_title
from service.conversations.trimming import num_turns_over
from service.conversations.turn_types import Claim, History, KeptReply, KeyedTurn, Reply, TurnMessage
from service.http_errors import NotFound

LEASE_S = 6.0
"""How long a process that was killed keeps others from its conversations."""
BUSY_RETRY_AFTER_S = 5.0


class TurnStore:
    """Owner: `access.Conversations`."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s

    async def take(self, claim: Claim) -> History | None:
        """Take the lease and read what a prompt needs; None while another process holds it.

        Raises ConversationNotFound.
        """

        async def work(session: AsyncSession) -> History | None:
            row = await find_row(session, claim.owner, claim.conversation_id, is_locked=True)
            lease = await session.get(LeaseRow, claim.conversation_id)
            now_s = await self._now_s(session)
            if lease is None:
                lease = LeaseRow(conversation_id=claim.conversation_id, holder=claim.holder, expires_s=0.0)
                session.add(lease)
            elif lease.holder != claim.holder and self._is_valid(lease, now_s):
                return None
            lease.holder, lease.expires_s = claim.holder, now_s + self._lease_s
            return await self._read_history(session, row)

        return await self._database.write(work)

    async def renew(self, holder: str, conversation_ids: Collection[str]) -> None:
        """Keep the leases that are still the holder's."""

        async def work(session: AsyncSession) -> None:
            of_ours = LeaseRow.conversation_id.in_(conversation_ids) & (LeaseRow.holder == holder)
            expires_s = await self._now_s(session) + self._lease_s
            await session.execute(update(LeaseRow).where(of_ours).values(expires_s=expires_s))

        await self._database.write(work)

    async def release(self, claim: Claim) -> None:
        """Give the lease back, with nothing else to write."""

        async def work(session: AsyncSession) -> None:
            await self._give_back(session, claim)

        await self._database.write(work)

    async def find_keyed(self, claim: Claim, key: str) -> KeyedTurn | None:
        """The turn that was posted with the idempotency key; None where there is none."""

        async def work(session: AsyncSession) -> KeyedTurn | None:
            row = await find_row(session, claim.owner, claim.conversation_id)
            of_it = messages_of(claim.owner, claim.conversation_id)
            keyed = select(MessageRow.turn).where(of_it, MessageRow.idempotency_key == key).scalar_subquery()
            of_turn = select(MessageRow).where(of_it, MessageRow.turn == keyed).order_by(MessageRow.position)
            messages = list(await session.scalars(of_turn))
            return _to_keyed_turn(row, messages, key) if messages else None

        return await self._database.read(work)

    async def post(
        self, claim: Claim, messages: Sequence[TurnMessage], retried_turn: int | None, key: str | None = None
    ) -> int:
        """Keep the messages of a new turn and return its number, or take `retried_turn` up again.

        The idempotency key is the turn's from now on. Raises ConversationNotFound, ConversationBusy or
        ConversationFull.
        """

        async def work(session: AsyncSession) -> int:
            row = await self._locked_row(session, claim)
            of_it = messages_of(claim.owner, claim.conversation_id)
            if key is not None:  # an older turn with it was never answered, and others came after it
                of_key = of_it & (MessageRow.idempotency_key == key)
                freed = update(MessageRow).where(of_key).values(idempotency_key=None)
                await session.execute(freed, execution_options=WITHOUT_OBJECTS)
            if retried_turn is not None:
                of_turn = of_it & (MessageRow.turn == retried_turn)
                taken_up = update(MessageRow).where(of_turn).values(error=None)
                await session.execute(taken_up, execution_options=WITHOUT_OBJECTS)
                if key is not None:
                    of_last = of_it & (MessageRow.position == row.num_messages)
                    keyed = update(MessageRow).where(of_last).values(idempotency_key=key)
                    await session.execute(keyed, execution_options=WITHOUT_OBJECTS)
                return retried_turn
            _check_room(row, messages)
            row.num_turns += 1
            rows = [_append(session, row, _new_row(row, message.role, message.content)) for message in messages]
            rows[-1].idempotency_key = key
            if row.title is None:
                row.title = default_title(messages[-1].content)
            return row.num_turns

        return await self._database.write(work)

    async def finish(self, claim: Claim, turn: int, reply: Reply) -> None:
        """Keep the reply and give the lease back; raises ConversationNotFound or ConversationBusy."""

        async def work(session: AsyncSession) -> None:
            row = await self._locked_row(session, claim)
            message = _new_row(row, "assistant", reply.content)
            message.model, message.finish_reason, message.turn = reply.model, reply.finish_reason, turn
            _append(session, row, message)
            await self._give_back(session, claim)

        await self._database.write(work)

    async def mark(self, claim: Claim, turn: int, error: str) -> None:
        """Say at the user's message why it has no reply, and give the lease back."""

        async def work(session: AsyncSession) -> None:
            if not await self._give_back(session, claim):
                return
            of_it = messages_of(claim.owner, claim.conversation_id)
            last = select(func.max(MessageRow.position)).where(of_it, MessageRow.turn == turn).scalar_subquery()
            of_last = of_it & (MessageRow.position == last)
            marked = update(MessageRow).where(of_last).values(error=error)
            await session.execute(marked, execution_options=WITHOUT_OBJECTS)

        await self._database.write(work)

    async def cut(self, claim: Claim, message_id: str) -> Conversation:
        """Remove a message and all after it; raises NotFound. What is left may end without a reply."""

        async def work(session: AsyncSession) -> Conversation:
            row = await self._locked_row(session, claim)
            of_it = messages_of(claim.owner, claim.conversation_id)
            query = select(MessageRow.id, MessageRow.turn, MessageRow.content).where(of_it)
            found = await all_rows(session, query.order_by(MessageRow.position))
            messages = [(one_id, turn, len(content.encode())) for one_id, turn, content in found]
            num_kept = next((index for index, message in enumerate(messages) if message[0] == message_id), None)
            if num_kept is None:
                raise NotFound(f"The conversation has no message '{clip(message_id, 64)}'.", param="message_id")
            rest = delete(MessageRow).where(of_it & (MessageRow.position > num_kept))
            await session.execute(rest, execution_options=WITHOUT_OBJECTS)
            row.num_messages = num_kept
            row.num_turns = messages[num_kept - 1][1] if num_kept else 0
            row.num_bytes = sum(num_bytes for _, _, num_bytes in messages[:num_kept])
            row.updated_ms = unix_ms()
            return to_conversation(row)

        return await self._database.write(work, erases=True)

    async def _read_history(self, session: AsyncSession, row: ConversationRow) -> History:
        """Without the turns that max_turns leaves out of any prompt; the turn to come is counted by `trimming`."""
        first_turn = num_turns_over(row.num_turns, row.max_turns) + 1
        of_it = messages_of(row.owner, row.id) & (MessageRow.turn >= first_turn)
        query = select(MessageRow.turn, MessageRow.role, MessageRow.content).where(of_it)
        found = await all_rows(session, query.order_by(MessageRow.position))
        messages = [TurnMessage(turn=turn, role=role, content=content) for turn, role, content in found]
        conversation: Conversation = to_conversation(row)
        return History(conversation=conversation, num_turns=row.num_turns, messages=messages)

    async def _locked_row(self, session: AsyncSession, claim: Claim) -> ConversationRow:
        row = await find_row(session, claim.owner, claim.conversation_id, is_locked=True)
        lease = await session.get(LeaseRow, claim.conversation_id)
        if lease is None or lease.holder != claim.holder:
            raise ConversationBusy(
                "Another request has taken this conversation over, because this server could not renew its hold in "
                "time; send the message again.",
                retry_after_s=BUSY_RETRY_AFTER_S,
            )
        return row

    async def _give_back(self, session: AsyncSession, claim: Claim) -> bool:
        """Whether it was still the holder's."""
        of_ours = (LeaseRow.conversation_id == claim.conversation_id) & (LeaseRow.holder == claim.holder)
        deleted = await session.execute(delete(LeaseRow).where(of_ours).returning(LeaseRow.conversation_id))
        return deleted.first() is not None

    async def _now_s(self, session: AsyncSession) -> float:
        now: ColumnElement[Any] = (
            (func.julianday("now") - 2440587.5) * 86400.0
            if self._database.is_sqlite
            else extract("epoch", func.clock_timestamp())
        )
        return float(await session.scalar(select(now)) or 0.0)

    def _is_valid(self, lease: LeaseRow, now_s: float) -> bool:
        """A lease that ends later than any can was made before the clock was set back, and counts as ended."""
        return now_s < lease.expires_s <= now_s + self._lease_s


def _check_room(row: ConversationRow, messages: Sequence[TurnMessage]) -> None:
    num_bytes = sum(len(message.content.encode()) for message in messages)
    if row.num_messages + len(messages) + 1 > MAX_STORED_MESSAGES or row.num_bytes + num_bytes > MAX_TEXT_BYTES:
        raise ConversationFull(
            f"The conversation holds {row.num_messages} messages with {row.num_bytes} bytes of text, at most "
            f"{MAX_STORED_MESSAGES} and {MAX_TEXT_BYTES}. Begin a new one.",
            param="conversation",
        )


def _new_row(row: ConversationRow, role: str, content: str) -> MessageRow:
    return MessageRow(
        id=new_id("msg_"),
        conversation_id=row.id,
        position=row.num_messages + 1,
        turn=row.num_turns,
        role=role,
        content=content,
        created_ms=unix_ms(),
    )


def _to_keyed_turn(row: ConversationRow, messages: Sequence[MessageRow], key: str) -> KeyedTurn:
    (end,) = (index for index, message in enumerate(messages, start=1) if message.idempotency_key == key)
    posted, last = messages[:end], messages[-1]
    return KeyedTurn(
        posted=[TurnMessage(turn=one.turn, role=one.role, content=one.content) for one in posted],
        reply=KeptReply(
            id=last.id,
            created_s=last.created_ms // 1000,
            content=last.content,
            model=last.model or "",
            finish_reason=last.finish_reason or "",
        )
        if len(messages) > end
        else None,
        is_last=last.position == row.num_messages,
    )


def _append(session: AsyncSession, row: ConversationRow, message: MessageRow) -> MessageRow:
    """Positions follow the count, so they are made one after another."""
    session.add(message)
    row.num_messages += 1
    row.num_bytes += len(message.content.encode())
    row.updated_ms = message.created_ms
    return message
