"""The free blocks of a pool, in the order in which they are handed out. Knows ids and tenants, nothing of content.

Empty blocks go first, then cached ones. Of these the next to go is the least recently used block of the tenant that
holds most, by its weight, and not the least recently used of all: with one list for everybody, whoever sends the most
distinct prompts empties the cache of everybody else.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from contracts.generation import Tenant

CLAIM_S = 600.0
"""How long a tenant that leaves its cached blocks alone keeps its part: someone reads and answers within this, while
the part of one that is gone for good falls to the others."""
_MAX_AT_ONCE = 16
"""A holder loses at most one of so many of its blocks, but no less than one, before holders are compared again."""
_MAX_STALE = 64
"""Entries that the queue of holders may keep beyond one for each."""

Turn = tuple[float, int, str]
"""Smaller goes first: minus the blocks per weight, when its oldest block was freed, the name."""


class Holder:
    """The cached free blocks of one tenant, at least one. Owner: FreeList."""

    __slots__ = ("block_to_stamp", "queued", "tenant", "used_s")

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        """As it last was: its weight may change."""
        self.block_to_stamp: OrderedDict[int, int] = OrderedDict()
        """Least recently used first; a stamp counts the blocks that were cached before, of all tenants."""
        self.used_s = 0.0
        self.queued: Turn | None = None
        """The entry in the queue that counts; there may be older ones."""

    def next_turn(self) -> Turn:
        stamps, tenant = self.block_to_stamp, self.tenant
        self.queued = (-len(stamps) / tenant.weight, next(iter(stamps.values())), tenant.name)
        return self.queued


class FreeList:
    """Empty blocks, and one LRU list of cached blocks for each tenant that has some. Owner: the BlockPool.

    A tenant that has used its blocks within CLAIM_S loses one only when nobody holds more per weight, so not while it
    holds less than its part of the cached blocks, by weight, of all tenants that have some. Blocks in use are not
    counted: what runs goes before what is cached. One tenant alone has a plain LRU list.

    Handing out a block costs the logarithm of the number of holders, whose queue is put right only before it is read.
    """

    def __init__(self, num_blocks: int) -> None:
        self.now_s = 0.0
        """Monotonic; set by the owner."""
        self._empty: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._block_to_holder: dict[int, Holder] = {}
        self._holders: OrderedDict[str, Holder] = OrderedDict()
        """Longest unused first."""
        self._changed: dict[str, Holder] = {}
        """Those whose entry in the queue may not be their turn."""
        self._queue: list[Turn] = []
        """A heap."""
        self._num_stamps = 0

    def __len__(self) -> int:
        return len(self._empty) + len(self._block_to_holder)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._empty or block_id in self._block_to_holder

    def __iter__(self) -> Iterator[int]:
        """Empty blocks, then the cached ones of all tenants, least recently used first."""
        yield from self._empty
        yield from sorted(self._block_to_holder, key=self._stamp)

    def _stamp(self, block_id: int) -> int:
        return self._block_to_holder[block_id].block_to_stamp[block_id]

    @property
    def num_cached(self) -> int:
        return len(self._block_to_holder)

    def cached_blocks(self) -> dict[int, str]:
        """The tenant of each cached block, as the tenants' lists say."""
        return {block_id: name for name, holder in self._holders.items() for block_id in holder.block_to_stamp}

    def add(self, block_ids: list[int], tenant: Tenant | None) -> None:
        """Take back blocks whose content `tenant` computed, the most recently used one last; None: empty ones."""
        if tenant is None:
            for block_id in block_ids:
                self._add_empty(block_id)
        elif block_ids:
            self._add_cached(block_ids, tenant)

    def _add_empty(self, block_id: int) -> None:
        self._empty[block_id] = None
        self._empty.move_to_end(block_id, last=False)

    def _add_cached(self, block_ids: list[int], tenant: Tenant) -> None:
        holder = self._holders.get(tenant.name)
        if holder is None:
            holder = self._holders[tenant.name] = Holder(tenant)
        holder.tenant = tenant
        self._use(holder)
        for stamp, block_id in enumerate(block_ids, start=self._num_stamps):
            holder.block_to_stamp[block_id] = stamp
            self._block_to_holder[block_id] = holder
        self._num_stamps += len(block_ids)

    def remove(self, block_id: int) -> None:
        """A free block is used again."""
        holder = self._block_to_holder.get(block_id)
        if holder is None:
            del self._empty[block_id]
        else:
            self._use(holder)
            self._take(holder, block_id)

    def empty(self, block_id: int) -> None:
        """The content of a cached block was forgotten."""
        holder = self._block_to_holder[block_id]
        self._changed[holder.tenant.name] = holder
        self._take(holder, block_id)
        self._add_empty(block_id)

    def _use(self, holder: Holder) -> None:
        holder.used_s = self.now_s
        self._holders.move_to_end(holder.tenant.name)
        self._changed[holder.tenant.name] = holder

    def _take(self, holder: Holder, block_id: int) -> None:
        del self._block_to_holder[block_id], holder.block_to_stamp[block_id]
        if not holder.block_to_stamp:
            del self._holders[holder.tenant.name]

    # ---- handing out

    def pop(self, num_blocks: int) -> list[int]:
        """Hand out so many blocks, of which there must be enough."""
        num_empty = min(num_blocks, len(self._empty))
        block_ids = [self._empty.popitem(last=False)[0] for _ in range(num_empty)]
        while len(block_ids) < num_blocks:
            num_left = num_blocks - len(block_ids)
            holder = next(iter(self._holders.values()))
            if len(self._holders) > 1 and self.now_s - holder.used_s <= CLAIM_S:
                block_ids += self._pop_of_largest(num_left)
            else:
                self._changed[holder.tenant.name] = holder
                block_ids += self._pop_of(holder, num_left)
        return block_ids

    def _pop_of_largest(self, num_blocks: int) -> list[int]:
        """At most so many blocks of whoever holds most, compared again and again."""
        self._sort_in_changed()
        queue = self._queue
        block_ids: list[int] = []
        while len(block_ids) < num_blocks and self._holders:
            holder = self._holders.get(queue[0][2])
            if holder is None or holder.queued is not queue[0]:
                heapq.heappop(queue)
                continue
            num_at_once = max(1, len(holder.block_to_stamp) // _MAX_AT_ONCE)
            block_ids += self._pop_of(holder, min(num_at_once, num_blocks - len(block_ids)))
            if holder.block_to_stamp:
                heapq.heapreplace(queue, holder.next_turn())
        return block_ids

    def _sort_in_changed(self) -> None:
        changed, self._changed = self._changed, {}
        if len(self._queue) + len(changed) > 2 * len(self._holders) + _MAX_STALE:
            self._queue = [holder.next_turn() for holder in self._holders.values()]
            heapq.heapify(self._queue)
            return
        for holder in changed.values():
            if holder.block_to_stamp:
                heapq.heappush(self._queue, holder.next_turn())

    def _pop_of(self, holder: Holder, num_blocks: int) -> list[int]:
        """At most so many blocks of one tenant, the least recently used first."""
        stamps, block_to_holder = holder.block_to_stamp, self._block_to_holder
        block_ids = [stamps.popitem(last=False)[0] for _ in range(min(num_blocks, len(stamps)))]
        for block_id in block_ids:
            del block_to_holder[block_id]
        if not stamps:
            del self._holders[holder.tenant.name]
        return block_ids
