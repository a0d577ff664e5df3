"""Reading a request again: parts of its event log, and the stream that asks for them one after the other.

Whoever reads asks for the next part only when it has dealt with the last: a slow reader holds nothing and nobody up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from contracts.generation import GenerationDelta

MAX_SLICE_DELTAS = 256
"""In one part: what a reader works through without a pause."""


class EventSlice(msgspec.Struct, frozen=True, array_like=True):
    """Some deltas of a request, in the order in which its samples got them."""

    deltas: list[GenerationDelta]
    is_over: bool
    """No delta will ever come behind these."""


ReadSlice = Callable[[int, bool], Awaitable[EventSlice]]
"""How many deltas to leave out, and whether to wait for what is behind them; raises QuireErrors."""


class FollowedStream:
    """The deltas of one request from the first on. Owner: the task that called `follow`.

    Life cycle: `open` -> `take` until it returns nothing or raises -> `close`.
    """

    __slots__ = ("_is_over", "_num_taken", "_on_close", "_read", "_ready", "request_id")

    def __init__(self, request_id: str, read: ReadSlice, on_close: Callable[[FollowedStream], None]) -> None:
        self.request_id = request_id
        self._read = read
        self._on_close = on_close
        self._ready: list[GenerationDelta] = []
        self._num_taken = 0
        self._is_over = False

    async def open(self) -> None:
        """Read what is there, without waiting; raises what `follow` raises."""
        self._keep(await self._read(0, False))

    async def take(self) -> list[GenerationDelta]:
        """Wait until something is ready and return a part of it; an empty list says that the request has ended."""
        while not self._ready and not self._is_over:
            self._keep(await self._read(self._num_taken, True))
        taken, self._ready = self._ready, []
        return taken

    def close(self) -> None:
        """Nothing more will be taken; may be called again."""
        self._on_close(self)

    def _keep(self, part: EventSlice) -> None:
        self._ready = part.deltas
        self._num_taken += len(part.deltas)
        self._is_over = part.is_over
