"""Processes that write conversations until they are killed, and what each of them was told is kept.

`python -m tests.service.conversations.killed_writer PATH_OR_URL` imports what is needed once; for each line that it
reads it forks a writer, which says `ack [what, id, text]` when a call has returned, in one write that no kill cuts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec

from contracts.conversations import ChangeConversation, CreateConversation
from service.conversations import database, locks, store, turn_store  # noqa: F401 (imported before it forks)
from service.conversations.access import Conversations, OpenConversations
from service.conversations.location import Location
from service.conversations.turn_types import Reply, TurnMessage

OWNER = "writer"
NUM_TASKS = 4
NUM_TURNS = 3
MAX_CALLS = 30
MAX_PAUSE_S = 0.03
_BEGUN, _ACK, _ENDED = b"begun ", b"ack ", b"ended"
Ack = tuple[str, str, str]


class Killer:
    """Owner of the process that forks writers. `kill_one` is one writer's life."""

    def __init__(self, process: subprocess.Popen[bytes], random: Random) -> None:
        self._process = process
        self._random = random

    def kill_one(self) -> list[Ack]:
        """Let a writer begin, kill it at some moment, and return what it was told, in order.

        The moment is a number of calls and some milliseconds, so that it is as random on a slow machine.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        acks: list[Ack] = []
        num_calls, pid = self._random.randrange(MAX_CALLS), 0
        for line in self._process.stdout:
            if line.startswith(_ENDED):
                return acks
            if line.startswith(_BEGUN):
                pid = int(line.removeprefix(_BEGUN))
            elif line.startswith(_ACK):
                acks.append(msgspec.json.decode(line.removeprefix(_ACK), type=Ack))
            if pid and len(acks) >= num_calls:
                time.sleep(self._random.uniform(0.0, MAX_PAUSE_S))
                os.kill(pid, signal.SIGKILL)
                pid = 0
        raise RuntimeError("the writers' process has ended")


@contextmanager
def running_killer(location: Location, seed: int) -> Iterator[Killer]:
    """Ends the process at the end."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    place = location.postgres_url or str(location.path)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.service.conversations.killed_writer", place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
    ) as process:
        try:
            yield Killer(process, Random(seed))
        finally:
            process.kill()


class Told(msgspec.Struct):
    """What writers were told, as far as it decides what must be there."""

    texts: dict[str, list[str]] = {}
    deleting: set[str] = set()
    """It was asked for; whether it was done is known of those in `deleted` only."""
    deleted: set[str] = set()

    def hear(self, acks: list[Ack]) -> None:
        for what, conversation_id, text in acks:
            if what == "deleting":
                self.deleting.add(conversation_id)
            elif what == "deleted":
                self.deleted.add(conversation_id)
            else:
                self.texts.setdefault(conversation_id, []).extend([text] * bool(text))

    async def missing(self, opened: OpenConversations, ids: set[str]) -> list[str]:
        """What of these conversations should be there and is not, or the reverse."""
        return [wrong for one in sorted(ids) if (wrong := await self._wrong_of(opened, one)) is not None]

    async def _wrong_of(self, opened: OpenConversations, conversation_id: str) -> str | None:
        from contracts.errors import ConversationNotFound

        try:
            detail = await opened.store.read(OWNER, conversation_id)
        except ConversationNotFound:
            return None if conversation_id in self.deleting else f"{conversation_id} is lost"
        kept = [message.content for message in detail.messages]
        wanted = self.texts[conversation_id]
        if conversation_id in self.deleted:
            return f"{conversation_id} is back"
        return None if kept[: len(wanted)] == wanted else f"{conversation_id} has {kept}, not {wanted}"


def main() -> None:
    """Fork a writer for each line."""
    place = sys.argv[1]
    is_url = "://" in place
    location = Location(postgres_url=place) if is_url else Location(path=Path(place))
    while sys.stdin.buffer.readline():
        pid = os.fork()
        if pid == 0:
            os.write(1, b"%s%d\n" % (_BEGUN, os.getpid()))
            asyncio.run(_write_for_ever(location))
        os.waitpid(pid, 0)
        os.write(1, _ENDED + b"\n")


async def _write_for_ever(location: Location) -> None:
    opened = await Conversations(location).open()
    await asyncio.gather(*(_write(opened, number) for number in range(NUM_TASKS)))


async def _write(opened: OpenConversations, number: int) -> None:
    while True:
        number += 1
        made = await opened.store.create(OWNER, CreateConversation())
        _acknowledge("made", made.id)
        for turn in range(NUM_TURNS):
            claim, _ = await opened.locks.acquire(OWNER, made.id)
            question, answer = f"question {turn} " + "?" * (number * 97 % 5000), f"answer {turn}"
            posted = await opened.turns.post(claim, [TurnMessage(role="user", content=question)], None, f"k{turn}")
            _acknowledge("posted", made.id, question)
            await opened.turns.finish(claim, posted, Reply(content=answer, model="m", finish_reason="stop"))
            _acknowledge("answered", made.id, answer)
            opened.locks.release(claim)
        await opened.store.change(OWNER, made.id, ChangeConversation(title=f"T{number}"))
        if number % 3 == 0:
            _acknowledge("deleting", made.id)
            await opened.store.delete(OWNER, made.id)
            _acknowledge("deleted", made.id)


def _acknowledge(what: str, conversation_id: str, text: str = "") -> None:
    line = _ACK + msgspec.json.encode((what, conversation_id, text)) + b"\n"
    written = os.write(1, line)
    assert written == len(line)


if __name__ == "__main__":
    main()
