"""Where each listening client is: hands what is posted at one worker to the worker at which its client listens.

Pure: told of messages, it sends others. Owner: the supervisor's event loop, or an application without a supervisor.
Knows no jobs but as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from contracts.errors import ClientNotConnected, clip
from contracts.frames import (
    CloseMailbox,
    DeliverJob,
    ErrorReport,
    JobPosted,
    JobTaken,
    MailboxNews,
    MailboxOpened,
    MailboxOrder,
    MailboxReplaced,
    OpenMailbox,
    PostJob,
)

Send = Callable[[str, MailboxNews], bool]
"""To a place; False: nobody is there any more."""


class _Mailbox(NamedTuple):
    place: str
    number: int


class MailboxExchange:
    """A place is a worker in one of its lives. Invariant: at most one mailbox for each owner and client id."""

    def __init__(self, send: Send, on_change: Callable[[], None] = lambda: None) -> None:
        self._send = send
        self._on_change = on_change
        self._mailboxes: dict[tuple[str, str], _Mailbox] = {}

    @property
    def num_open(self) -> int:
        """Clients that listen."""
        return len(self._mailboxes)

    def handle(self, place: str, message: MailboxOrder) -> None:
        """What a worker says."""
        if isinstance(message, OpenMailbox):
            self._open(place, message)
        elif isinstance(message, CloseMailbox):
            self._close(place, message)
        elif isinstance(message, PostJob):
            self._post(place, message)
        elif isinstance(message, JobTaken):
            self._send(message.place, JobPosted(message.number, message.error))

    def forget(self, place: str) -> None:
        """The worker of that place has ended."""
        gone = [key for key, mailbox in self._mailboxes.items() if mailbox.place == place]
        for key in gone:
            del self._mailboxes[key]
        if gone:
            self._on_change()

    def _open(self, place: str, message: OpenMailbox) -> None:
        """The newer connection counts: the older one may be dead without anybody knowing yet."""
        key = message.owner, message.client_id
        older = self._mailboxes.get(key)
        self._mailboxes[key] = _Mailbox(place, message.number)
        if older is not None:
            self._send(older.place, MailboxReplaced(older.number))
        self._send(place, MailboxOpened(message.number))
        self._on_change()

    def _close(self, place: str, message: CloseMailbox) -> None:
        key = message.owner, message.client_id
        if self._mailboxes.get(key) == _Mailbox(place, message.number):
            del self._mailboxes[key]
            self._on_change()

    def _post(self, place: str, message: PostJob) -> None:
        mailbox = self._mailboxes.get((message.owner, message.client_id))
        if mailbox is not None:
            if self._send(mailbox.place, DeliverJob(mailbox.number, place, message.number, message.job)):
                return
            self.forget(mailbox.place)
        error = not_connected(message.client_id)
        self._send(place, JobPosted(message.number, ErrorReport.of(error)))


def not_connected(client_id: str) -> ClientNotConnected:
    """What whoever posts to nobody is told."""
    return ClientNotConnected(f"Client '{clip(client_id)}' not connected.", param="client_id")
