"""Refuses at the door, before a body is read, while the engine has just said that it has no room. Knows no HTTP.

Under overload most requests end in a refusal: reading, decoding and tokenising them first would take the time that
the engine and the admitted streams need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import structlog

from contracts.errors import NoRoom

TELL_EVERY_S = 1.0
"""Between two lines in the log, while requests are refused."""
HOLD_S = 0.05
"""How long one answer of the engine stands for all: about as long as its batch needs for a few tokens."""


_log = structlog.get_logger("service.requests")


class RefusedUnread(NoRoom):
    """The same, said at the door: the log counts these instead of naming each."""


class Gate(Protocol):
    """What stands before every request."""

    @property
    def num_refused(self) -> int:
        """Requests that never reached an engine."""
        ...

    def check(self) -> None:
        """Raise NoRoom while nothing can be taken."""
        ...


class OverloadGate:
    """Owner: one worker's event loop. Shut by the engine's refusals, opens by itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open_from_s = 0.0
        self._refusal: NoRoom | None = None
        self.num_refused = 0
        """Requests that never reached the engine."""
        self._num_told = 0
        self._told_s = -TELL_EVERY_S
        self._num_logged = 0

    def shut(self, refusal: NoRoom) -> None:
        """The engine has just refused a request for which any other would have been refused as well."""
        self._open_from_s = self._clock() + HOLD_S
        self._refusal = refusal

    def take_num_refused(self) -> int:
        """How many were refused since this was last asked."""
        num_new = self.num_refused - self._num_told
        self._num_told = self.num_refused
        return num_new

    def check(self) -> None:
        """Raise NoRoom while the gate is shut."""
        now_s = self._clock()
        if self._refusal is None or now_s >= self._open_from_s:
            return
        self.num_refused += 1
        if now_s - self._told_s >= TELL_EVERY_S:
            _log.warning("requests_refused_unread", num_requests=self.num_refused - self._num_logged)
            self._told_s, self._num_logged = now_s, self.num_refused
        raise RefusedUnread(self._refusal.message, retry_after_s=self._refusal.retry_after_s)


class FrontGate:
    """Before a body is read nobody knows its model: this one refuses only where a single model is loaded."""

    def __init__(self, gates: Callable[[], list[OverloadGate]]) -> None:
        self._gates = gates
        self.num_refused = 0
        """Of all models that ever were the only one; the gate of each goes with it."""

    def check(self) -> None:
        """Raise NoRoom while the one engine has none."""
        gates = self._gates()
        if len(gates) != 1:
            return
        try:
            gates[0].check()
        except NoRoom:
            self.num_refused += 1
            raise
