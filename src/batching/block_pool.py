"""Which KV blocks are free, referenced or cached. Knows ids and content keys, nothing of tensors or sequences.

A block is in exactly one state: referenced (ref count > 0), cached (ref 0, key known, on the free list), or empty
(ref 0, no key, on the free list). Which free block goes next is the free list's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from batching.block_table import BlockKey, is_same_content
from batching.free_list import FreeList
from contracts.generation import Tenant

_ANYBODY = Tenant()


class BlockPoolCorrupt(RuntimeError):
    """The pool's own books do not agree: a bug in the engine, never a caller's fault."""


class BlockPool:
    """Reference counts, content keys and the free list of `num_blocks` blocks. Owner: the Scheduler.

    Ownership: a block belongs to whoever acquired or allocated it from that call until the matching `release`.
    A block with a reference count above 1 is full and is never written again. While it is cached it counts for the
    tenant that computed it; another tenant finds it only under the same salt.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._num_refs = [0] * num_blocks
        self._keys: list[BlockKey | None] = [None] * num_blocks
        self._tenants: list[Tenant | None] = [None] * num_blocks
        """Who computed the content; None where there is no key."""
        self._digest_to_block: dict[bytes, int] = {}
        self._free = FreeList(num_blocks)

    def begin_step(self, now_s: float) -> None:
        """Tell the time, which only moves on."""
        self._free.now_s = now_s

    @property
    def num_free_blocks(self) -> int:
        """Blocks that `allocate` can hand out: empty and cached ones."""
        return len(self._free)

    @property
    def num_cached_blocks(self) -> int:
        """Free blocks whose content can still be matched."""
        return self._free.num_cached

    def cached_block_ids(self) -> list[int]:
        """Which they are, in no order."""
        return list(self._free.cached_blocks())

    def shared_block_ids(self, num_blocks: int) -> list[int]:
        """Those with several references among the first `num_blocks`, in order."""
        return [block_id for block_id, refs in enumerate(self._num_refs[:num_blocks]) if refs > 1]

    def num_refs(self, block_id: int) -> int:
        return self._num_refs[block_id]

    def match(self, keys: Iterable[BlockKey]) -> list[int]:
        """The longest run of leading keys that are cached, as block ids; takes no reference."""
        block_ids: list[int] = []
        parent: BlockKey | None = None  # of the next block: a match so far, as the pool knows it
        for key in keys:
            block_id = self._digest_to_block.get(key.digest)
            found = None if block_id is None else self._keys[block_id]
            if block_id is None or found is None or found.token_ids != key.token_ids:
                break
            if not is_same_content(found.parent, parent or key.parent):
                break
            block_ids.append(block_id)
            parent = found
        return block_ids

    def acquire(self, block_ids: list[int]) -> None:
        """Take one reference to each of these matched blocks."""
        for block_id in block_ids:
            if self._num_refs[block_id] == 0:
                self._free.remove(block_id)
            self._num_refs[block_id] += 1

    def num_free_among(self, block_ids: list[int]) -> int:
        """How many of these blocks are on the free list, so that acquiring them shortens it."""
        return sum(1 for block_id in block_ids if self._num_refs[block_id] == 0)

    def allocate(self, num_blocks: int) -> list[int]:
        """Hand out blocks with one reference each, forgetting what the free list gives up first; needs enough free."""
        if num_blocks == 0:  # of most decodes
            return []
        if num_blocks > len(self._free):
            raise BlockPoolCorrupt(f"{num_blocks} blocks asked for, {len(self._free)} free")
        block_ids = self._free.pop(num_blocks)
        for block_id in block_ids:
            self._num_refs[block_id] = 1
            self._forget(block_id)
        return block_ids

    def release(self, block_ids: list[int]) -> list[int]:
        """Drop one reference to each block, last block first, and return those that became free.

        The end of a sequence is evicted before its beginning, which more requests may share.
        """
        freed = []
        for block_id in reversed(block_ids):
            if self._num_refs[block_id] <= 0:
                raise BlockPoolCorrupt(f"block {block_id} released more often than acquired")
            self._num_refs[block_id] -= 1
            if self._num_refs[block_id] == 0:
                freed.append(block_id)
        for tenant, group in groupby(freed, self._tenants.__getitem__):
            self._free.add(list(group), tenant)
        return freed

    def register(self, block_id: int, key: BlockKey, tenant: Tenant = _ANYBODY) -> None:
        """Make a full, computed block findable; if another block holds the same content, that one stays the entry.

        The block is referenced: `tenant` counts from its release.
        """
        if key.digest not in self._digest_to_block and self._keys[block_id] is None:
            self._digest_to_block[key.digest] = block_id
            self._keys[block_id] = key
            self._tenants[block_id] = tenant

    def forget(self, block_ids: Iterable[int]) -> None:
        """Make these blocks unfindable (their content is suspect); references stay."""
        for block_id in block_ids:
            self._forget(block_id)

    def _forget(self, block_id: int) -> None:
        key = self._keys[block_id]
        if key is not None:
            del self._digest_to_block[key.digest]
            self._keys[block_id] = None
            self._tenants[block_id] = None
            if self._num_refs[block_id] == 0:
                self._free.empty(block_id)

    def forget_all(self) -> None:
        """Empty the prefix cache."""
        self.forget(range(self.num_blocks))

    def reset(self) -> None:
        """Make every block empty and free, whatever the books say; nobody may hold one."""
        self._num_refs = [0] * self.num_blocks
        self._keys = [None] * self.num_blocks
        self._tenants = [None] * self.num_blocks
        self._digest_to_block = {}
        self._free = FreeList(self.num_blocks)

    def idle_fault(self) -> str | None:
        """What is wrong if any block is held, lost or half known; quick enough for every idle moment."""
        if any(self._num_refs) or len(self._free) != self.num_blocks:
            num_held = self.num_blocks - self._num_refs.count(0)
            return f"nothing is live, but {num_held} blocks are held and {len(self._free)} are free"
        num_keys = self.num_blocks - self._keys.count(None)
        if num_keys != len(self._digest_to_block):
            return f"{num_keys} blocks have a key, {len(self._digest_to_block)} can be found"
        return None

    def check_integrity(self, tables: Iterable[list[int]]) -> None:
        """Raise BlockPoolCorrupt unless the counts equal the live `tables` and every block is in one state."""
        expected = [0] * self.num_blocks
        for table in tables:
            for block_id in table:
                expected[block_id] += 1
        if expected != self._num_refs:
            wrong = [block_id for block_id, count in enumerate(self._num_refs) if count != expected[block_id]]
            raise BlockPoolCorrupt(
                f"block {wrong[0]} has {self._num_refs[wrong[0]]} references, tables hold {expected[wrong[0]]}"
            )
        if len(self._free) != expected.count(0) or any(expected[block_id] for block_id in self._free):
            raise BlockPoolCorrupt(
                f"a block is on the wrong side of the free list: {len(self._free)} are on it, not {expected.count(0)}"
            )
        for digest, block_id in self._digest_to_block.items():
            key = self._keys[block_id]
            if key is None or key.digest != digest:
                raise BlockPoolCorrupt(f"block {block_id} is found under a key that is not its own")
        if self.num_blocks - self._keys.count(None) != len(self._digest_to_block):
            raise BlockPoolCorrupt("a block has a key under which it cannot be found")
        findable = [block_id for block_id in self._digest_to_block.values() if self._num_refs[block_id] == 0]
        cached = {block_id: self._tenants[block_id] for block_id in findable}
        held = self._free.cached_blocks()
        if {block_id: tenant and tenant.name for block_id, tenant in cached.items()} != held:
            raise BlockPoolCorrupt(f"{len(cached)} free blocks have a key, but not those that the tenants hold")
