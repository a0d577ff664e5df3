"""Whose turn it is among the tenants: one virtual token counter each (VTC: Sheng et al., OSDI 2024, algorithm 2).

A tenant's counter grows by the tokens it is served, divided by its weight: the prompt tokens computed at the first
admission of each sequence, and every token generated. What preemption makes the engine compute again is not charged.
Of the tenants that wait, the one with the smallest counter goes next. Knows names and numbers, nothing of sequences.
"""

from __future__ import annotations

from collections import OrderedDict

from contracts.generation import Tenant

MAX_IDLE_TENANTS = 1024
"""Tenants without a live request whose counters are kept while others work; the longest idle is forgotten first."""


class Share:
    """One tenant's counter, in tokens per unit of weight. Owner: FairShare."""

    __slots__ = ("counter", "num_requests")

    def __init__(self) -> None:
        self.counter = 0.0
        self.num_requests = 0


class FairShare:
    """The counters of all tenants. Owner: the Scheduler; its waiting queue says who waits.

    A tenant that begins to wait is lifted to the smallest counter of those that wait (of the last that did, if none
    does), so that idling saves up nothing; one that is ahead stays ahead, so that pausing between two requests does
    not shed what it had. Between tenants that wait all the time, service per weight therefore differs by a bounded
    amount, whatever they send. Counters live as long as there is any live request at all: an idle engine has no debts.
    """

    def __init__(self) -> None:
        self._live: dict[str, Share] = {}
        self._idle: OrderedDict[str, Share] = OrderedDict()
        self._waiting: dict[str, Share] = {}
        self._last_waited = Share()

    @property
    def num_tenants(self) -> int:
        """Tenants whose counter is known."""
        return len(self._live) + len(self._idle)

    def counter(self, name: str) -> float:
        """Tokens per unit of weight that a tenant with a live request has had."""
        return self._live[name].counter

    def open(self, name: str) -> None:
        """A request of this tenant was admitted to the queue."""
        share = self._live.get(name)
        if share is None:
            share = self._live[name] = self._idle.pop(name) if name in self._idle else Share()
        share.num_requests += 1

    def close(self, name: str) -> None:
        """A request of this tenant ended, and none of its sequences waits or runs."""
        share = self._live[name]
        share.num_requests -= 1
        if share.num_requests == 0:
            self._idle[name] = self._live.pop(name)
            if len(self._idle) > MAX_IDLE_TENANTS:
                self._idle.popitem(last=False)
        if not self._live:
            self.clear()

    def clear(self) -> None:
        """Forget everybody."""
        for shares in (self._live, self._idle, self._waiting):
            shares.clear()
        self._last_waited = Share()

    def begin_waiting(self, name: str) -> None:
        """This tenant, which had no sequence in the waiting queue, now has one."""
        share = self._live[name]
        smallest = min((other.counter for other in self._waiting.values()), default=self._last_waited.counter)
        share.counter = max(share.counter, smallest)
        self._waiting[name] = share

    def end_waiting(self, name: str) -> None:
        """The last sequence of this tenant left the waiting queue."""
        self._last_waited = self._waiting.pop(name)

    def charge(self, tenant: Tenant, num_tokens: int) -> None:
        """Count tokens that a live tenant was served."""
        self._live[tenant.name].counter += num_tokens / tenant.weight
