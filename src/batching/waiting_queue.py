"""Sequences that wait for a place in the batch, in the order in which they will get one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from batching.sequence import Sequence, SequenceStatus

_MAX_STALE = 64
"""Removed entries that the heap may keep beyond its live ones, so that aborts behind a stuck head do not pile up."""


class WaitingQueue:
    """A heap by `Sequence.order` with lazy removal. Owner: the Scheduler.

    The order is priority in units of waiting time plus arrival: it never changes, so ageing needs no re-sorting, and
    a preempted sequence returns to its old place.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._waiting: dict[int, Sequence] = {}
        self.num_tokens = 0
        """Sum of the known tokens of the waiting sequences."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting.values())

    def push(self, sequence: Sequence) -> None:
        sequence.status = SequenceStatus.WAITING
        self._waiting[sequence.seq_id] = sequence
        self.num_tokens += sequence.num_tokens
        heapq.heappush(self._heap, sequence.order)

    def peek(self) -> Sequence | None:
        """The sequence that goes next, left in place."""
        while self._heap and self._heap[0][1] not in self._waiting:
            heapq.heappop(self._heap)
        return self._waiting[self._heap[0][1]] if self._heap else None

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands; absent ones are ignored."""
        if self._waiting.pop(sequence.seq_id, None) is not None:
            self.num_tokens -= sequence.num_tokens
            if len(self._heap) > 2 * len(self._waiting) + _MAX_STALE:
                self._heap = sorted(waiting.order for waiting in self._waiting.values())
