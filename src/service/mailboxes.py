"""The clients that listen at this worker, each for one job, and the jobs that are posted here for any of them.

Owner: one worker's event loop. Speaks with a `MailboxExchange`, at the supervisor or in this process. Knows jobs as
bytes, and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Self

from contracts.errors import (
    BodyTooLarge,
    ClientBusy,
    ClientReplaced,
    OverloadError,
    QueueFull,
    ShuttingDown,
    clip,
)
from contracts.frames import (
    CloseMailbox,
    DeliverJob,
    ErrorReport,
    JobPosted,
    JobTaken,
    MailboxCount,
    MailboxNews,
    MailboxOpened,
    MailboxOrder,
    MailboxReplaced,
    OpenMailbox,
    PostJob,
)
from service.mailbox_exchange import MailboxExchange, not_connected

MAX_OPEN: Final = 4096
"""Clients that may listen at one worker."""
MAX_JOB_BYTES: Final = 16 * 1024 * 1024
MAX_INLINE_JOB_BYTES: Final = 64 * 1024
"""A longer one is sent from a thread, as the supervisor may read it slowly."""
ANSWER_TIMEOUT_S: Final = 5.0
"""The supervisor answers at once, and so does a worker that lives."""


class Mailbox:
    """One listening connection. Life cycle: `take` once, which returns the job or raises why there will be none."""

    def __init__(self, number: int, owner: str, client_id: str) -> None:
        self.number = number
        self.owner = owner
        self.client_id = client_id
        self._job: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(self) -> bytes:
        """The job; raises ClientReplaced or ShuttingDown."""
        return await self._job

    def put(self, job: bytes) -> None:
        """Raises ClientBusy where it has had one."""
        if self._job.done():
            raise ClientBusy(
                f"Client '{clip(self.client_id)}' has a prompt already. Connect again for the next one.",
                param="client_id",
            )
        self._job.set_result(job)

    def end(self, error: ClientReplaced | ShuttingDown) -> None:
        """No job will come; one that has come goes on."""
        if not self._job.done():
            self._job.set_exception(error)
            self._job.exception()  # whoever takes it has it; nobody need


class Mailboxes:
    """Life cycle: `open`, `close` and `post` at any time -> `stop`; `handle` is told what the exchange says."""

    def __init__(self, send: Callable[[MailboxOrder], None], *, is_alone: bool = False) -> None:
        """`send` may be called in any thread, unless this is alone."""
        self._send = send
        self._is_alone = is_alone
        self._opened: dict[int, Mailbox] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last_number = 0
        self._is_stopped = False
        self.num_everywhere = 0
        """Clients that listen at any worker, about."""

    @classmethod
    def alone(cls) -> Self:
        """Of an application without a supervisor."""

        def deliver(place: str, message: MailboxNews) -> bool:
            mailboxes.handle(message)
            return True

        def count() -> None:
            mailboxes.handle(MailboxCount(exchange.num_open))

        exchange = MailboxExchange(deliver, count)
        mailboxes = cls(lambda message: exchange.handle("here", message), is_alone=True)
        return mailboxes

    async def open(self, owner: str, client_id: str) -> Mailbox:
        """Listen; when it returns, every worker can post. Raises QueueFull, ShuttingDown or OverloadError."""
        if self._is_stopped:
            raise _shutting_down()
        if len(self._opened) >= MAX_OPEN:
            raise QueueFull(f"{MAX_OPEN} clients listen at this worker already.", retry_after_s=1.0)
        mailbox = Mailbox(self._next_number(), owner, client_id)
        self._opened[mailbox.number] = mailbox
        try:
            await self._ask(mailbox.number, OpenMailbox(mailbox.number, owner, client_id))
        except BaseException:
            self.close(mailbox)
            raise
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """Nobody listens any longer; may be called again."""
        if self._opened.pop(mailbox.number, None) is not None:
            self._send(CloseMailbox(mailbox.number, mailbox.owner, mailbox.client_id))

    async def post(self, owner: str, client_id: str, job: bytes) -> None:
        """Return once the worker of the listening client has the job.

        Raises ClientNotConnected, ClientBusy, BodyTooLarge or OverloadError.
        """
        if len(job) > MAX_JOB_BYTES:
            raise BodyTooLarge(f"The prompt has {len(job)} bytes, at most {MAX_JOB_BYTES}. Shorten it.")
        number = self._next_number()
        await self._ask(number, PostJob(number, owner, client_id, job))

    def stop(self) -> None:
        """End every connection that still waits for its job; those that have one go on."""
        self._is_stopped = True
        for mailbox in list(self._opened.values()):
            mailbox.end(_shutting_down())

    def handle(self, message: MailboxNews) -> None:
        """What the exchange says."""
        if isinstance(message, MailboxOpened):
            self._settle(message.number, None)
        elif isinstance(message, JobPosted):
            self._settle(message.number, message.error)
        elif isinstance(message, DeliverJob):
            self._send(JobTaken(message.place, message.number, self._take_in(message)))
        elif isinstance(message, MailboxCount):
            self.num_everywhere = message.num_open
        elif isinstance(message, MailboxReplaced) and message.number in self._opened:
            self._opened[message.number].end(ClientReplaced("A newer connection listens under this client id."))

    def _take_in(self, message: DeliverJob) -> ErrorReport | None:
        mailbox = self._opened.get(message.mailbox)
        if mailbox is None:
            return ErrorReport.of(not_connected("of this prompt"))
        try:
            mailbox.put(message.job)
        except ClientBusy as error:
            return ErrorReport.of(error)
        return None

    def _settle(self, number: int, error: ErrorReport | None) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error.to_error())

    async def _ask(self, number: int, message: OpenMailbox | PostJob) -> None:
        """Send, and wait for the answer of the same number."""
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if isinstance(message, PostJob) and len(message.job) > MAX_INLINE_JOB_BYTES and not self._is_alone:
                    await asyncio.to_thread(self._send, message)
                else:
                    self._send(message)
                await answer
        except TimeoutError:
            raise OverloadError(
                f"The listening client's worker did not answer within {ANSWER_TIMEOUT_S:g} s.", retry_after_s=1.0
            ) from None
        finally:
            del self._waiting[number]

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is stopping; connect again.", retry_after_s=1.0)
