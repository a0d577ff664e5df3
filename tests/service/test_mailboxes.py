"""Jobs find their clients wherever these listen; everybody who posts or listens is told how it ended."""

from __future__ import annotations

import asyncio

import pytest

from contracts.errors import BodyTooLarge, ClientBusy, ClientNotConnected, ClientReplaced, OverloadError, ShuttingDown
from contracts.frames import MailboxNews
from service import mailboxes as module
from service.mailbox_exchange import MailboxExchange
from service.mailboxes import Mailboxes


class Floor:
    """Workers around one exchange; `gone` are places that nobody answers at."""

    def __init__(self, *places: str) -> None:
        self.exchange = MailboxExchange(self._send)
        self.gone: set[str] = set()
        self.workers = {place: self._hire(place) for place in places}

    def _hire(self, place: str) -> Mailboxes:
        return Mailboxes(lambda message: self.exchange.handle(place, message))

    def _send(self, place: str, message: MailboxNews) -> bool:
        if place in self.gone:
            return False
        self.workers[place].handle(message)
        return True


@pytest.fixture
def floor() -> Floor:
    return Floor("a", "b")


@pytest.mark.parametrize("poster", ["a", "b"])
async def test_job_reaches_the_worker_at_which_its_client_listens(floor: Floor, poster: str) -> None:
    mailbox = await floor.workers["a"].open("ann", "c")
    await floor.workers[poster].post("ann", "c", b"job")
    assert await mailbox.take() == b"job"


async def test_client_id_belongs_to_its_owner(floor: Floor) -> None:
    await floor.workers["a"].open("ann", "c")
    with pytest.raises(ClientNotConnected, match="Client 'c' not connected"):
        await floor.workers["b"].post("bob", "c", b"job")


async def test_mailbox_takes_one_job(floor: Floor) -> None:
    await floor.workers["a"].open("ann", "c")
    await floor.workers["b"].post("ann", "c", b"job")
    with pytest.raises(ClientBusy):
        await floor.workers["b"].post("ann", "c", b"another")


async def test_newer_connection_counts_and_the_older_one_is_told(floor: Floor) -> None:
    older = await floor.workers["a"].open("ann", "c")
    newer = await floor.workers["b"].open("ann", "c")
    with pytest.raises(ClientReplaced):
        await older.take()
    floor.workers["a"].close(older)  # must not close the newer one
    await floor.workers["a"].post("ann", "c", b"job")
    assert await newer.take() == b"job"


async def test_older_connection_keeps_the_job_that_it_has(floor: Floor) -> None:
    older = await floor.workers["a"].open("ann", "c")
    await floor.workers["a"].post("ann", "c", b"job")
    await floor.workers["b"].open("ann", "c")
    assert await older.take() == b"job"


async def test_closed_mailbox_is_not_connected(floor: Floor) -> None:
    mailbox = await floor.workers["a"].open("ann", "c")
    floor.workers["a"].close(mailbox)
    floor.workers["a"].close(mailbox)
    assert floor.exchange.num_open == 0
    with pytest.raises(ClientNotConnected):
        await floor.workers["b"].post("ann", "c", b"job")


async def test_clients_of_a_lost_worker_are_forgotten(floor: Floor) -> None:
    await floor.workers["a"].open("ann", "c")
    await floor.workers["a"].open("ann", "d")
    floor.gone.add("a")
    with pytest.raises(ClientNotConnected):
        await floor.workers["b"].post("ann", "c", b"job")
    assert floor.exchange.num_open == 0


async def test_silent_supervisor_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.01)
    alone = Mailboxes(lambda message: None)
    with pytest.raises(OverloadError, match="did not answer"):
        await alone.post("ann", "c", b"job")
    with pytest.raises(OverloadError, match="did not answer"):
        await alone.open("ann", "c")


async def test_long_job_is_sent_from_a_thread_and_one_too_long_not_at_all() -> None:
    sent: list[object] = []
    alone = Mailboxes(sent.append)
    posting = asyncio.create_task(alone.post("ann", "c", b"j" * (module.MAX_INLINE_JOB_BYTES + 1)))
    while not sent:
        await asyncio.sleep(0.01)
    posting.cancel()
    with pytest.raises(BodyTooLarge):
        await alone.post("ann", "c", b"j" * (module.MAX_JOB_BYTES + 1))
    assert len(sent) == 1


async def test_stop_ends_those_who_wait_and_nobody_else(floor: Floor) -> None:
    waiting = await floor.workers["a"].open("ann", "c")
    busy = await floor.workers["a"].open("ann", "d")
    await floor.workers["a"].post("ann", "d", b"job")
    floor.workers["a"].stop()
    with pytest.raises(ShuttingDown):
        await waiting.take()
    assert await busy.take() == b"job"
    with pytest.raises(ShuttingDown):
        await floor.workers["a"].open("ann", "e")


async def test_application_without_a_supervisor_is_its_own_exchange() -> None:
    alone = Mailboxes.alone()
    mailbox = await alone.open("", "c")
    assert alone.num_everywhere == 1
    await alone.post("", "c", b"j" * (module.MAX_INLINE_JOB_BYTES + 1))
    assert len(await mailbox.take()) > 1
    alone.close(mailbox)
    assert alone.num_everywhere == 0
