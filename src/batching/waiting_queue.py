"""Sequences that wait for a place in the batch, in the order in which they will get one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from batching.fair_share import FairShare
from batching.sequence import Sequence, SequenceStatus

_MAX_STALE = 64
"""Removed entries that a heap may keep beyond its live ones, so that aborts behind a stuck head do not pile up."""


class Lane:
    """The waiting sequences of one tenant: a heap by `Sequence.order` with lazy removal. Owner: the WaitingQueue."""

    __slots__ = ("heap", "num_waiting")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []
        self.num_waiting = 0


class WaitingQueue:
    """One lane for each tenant that waits. Owner: the Scheduler.

    Between tenants the smallest counter of `shares` goes next; among equals, and within a tenant, the smallest order.
    The order is priority in units of waiting time plus arrival: it never changes, so ageing needs no re-sorting, and
    a preempted sequence returns to its old place.
    """

    def __init__(self, shares: FairShare | None = None) -> None:
        self.shares = shares or FairShare()
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[int, Sequence] = {}
        self.num_tokens = 0
        """Sum of the known tokens of the waiting sequences."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting.values())

    def push(self, sequence: Sequence) -> None:
        """Queue a sequence whose request is open in `shares`."""
        sequence.status = SequenceStatus.WAITING
        self._waiting[sequence.seq_id] = sequence
        self.num_tokens += sequence.num_tokens
        name = sequence.request.tenant.name
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane()
            self.shares.begin_waiting(name)
        lane.num_waiting += 1
        heapq.heappush(lane.heap, sequence.order)

    def in_turn(self) -> Iterator[Sequence]:
        """All that wait, in the order in which they would be let in if nobody came; for whoever asks, not for a step.

        What each would be charged is counted, so that tenants take turns as they will.
        """
        lanes = []
        for name, lane in self._lanes.items():
            orders = sorted({order for order in lane.heap if order[1] in self._waiting}, reverse=True)
            lanes.append((self.shares.counter(name), orders.pop(), orders))
        heapq.heapify(lanes)
        while lanes:
            counter, head, orders = lanes[0]
            sequence = self._waiting[head[1]]
            yield sequence
            if sequence.scheduled_s is None:
                counter += sequence.num_remaining_tokens / sequence.request.tenant.weight
            if orders:
                heapq.heapreplace(lanes, (counter, orders.pop(), orders))
            else:
                heapq.heappop(lanes)

    def peek(self) -> Sequence | None:
        """The sequence that goes next, left in place."""
        if not self._lanes:
            return None
        counter = self.shares.counter
        _, head = min((counter(name), self._head(lane)) for name, lane in self._lanes.items())
        return self._waiting[head[1]]

    def _head(self, lane: Lane) -> tuple[float, int]:
        while lane.heap[0][1] not in self._waiting:
            heapq.heappop(lane.heap)
        return lane.heap[0]

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands; absent ones are ignored."""
        if self._waiting.pop(sequence.seq_id, None) is None:
            return
        self.num_tokens -= sequence.num_tokens
        name = sequence.request.tenant.name
        lane = self._lanes[name]
        lane.num_waiting -= 1
        if lane.num_waiting == 0:
            del self._lanes[name]
            self.shares.end_waiting(name)
        elif len(lane.heap) > 2 * lane.num_waiting + _MAX_STALE:
            lane.heap = sorted({order for order in lane.heap if order[1] in self._waiting})

    def clear(self) -> None:
        """Forget every sequence; the shares are cleared by their owner."""
        self._lanes.clear()
        self._waiting.clear()
        self.num_tokens = 0
