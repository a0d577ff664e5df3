"""Which KV blocks are free, referenced or cached. Knows ids and content keys, nothing of tensors or sequences.

A block is in exactly one state: referenced (ref count > 0), cached (ref 0, key known, on the free list), or empty
(ref 0, no key, on the free list). The free list runs from least to most recently used, empty blocks first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from batching.block_table import BlockKey


class BlockPoolCorrupt(RuntimeError):
    """The pool's own books do not agree: a bug in the engine, never a caller's fault."""


class BlockPool:
    """Reference counts, content keys and the LRU free list of `num_blocks` blocks. Owner: the Scheduler.

    Ownership: a block belongs to whoever acquired or allocated it from that call until the matching `release`.
    A block with a reference count above 1 is full and is never written again.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._num_refs = [0] * num_blocks
        self._keys: list[BlockKey | None] = [None] * num_blocks
        self._digest_to_block: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free_blocks(self) -> int:
        """Blocks that `allocate` can hand out: empty and cached ones."""
        return len(self._free)

    @property
    def num_cached_blocks(self) -> int:
        """Free blocks whose content can still be matched."""
        return sum(1 for block_id in self._digest_to_block.values() if self._num_refs[block_id] == 0)

    def num_refs(self, block_id: int) -> int:
        return self._num_refs[block_id]

    def match(self, keys: Iterable[BlockKey]) -> list[int]:
        """The longest run of leading keys that are cached, as block ids; takes no reference."""
        block_ids = []
        for key in keys:
            block_id = self._digest_to_block.get(key.digest)
            if block_id is None or self._keys[block_id] != key:
                break
            block_ids.append(block_id)
        return block_ids

    def acquire(self, block_ids: list[int]) -> None:
        """Take one reference to each of these matched blocks."""
        for block_id in block_ids:
            if self._num_refs[block_id] == 0:
                del self._free[block_id]
            self._num_refs[block_id] += 1

    def num_free_among(self, block_ids: list[int]) -> int:
        """How many of these blocks are on the free list, so that acquiring them shortens it."""
        return sum(1 for block_id in block_ids if self._num_refs[block_id] == 0)

    def allocate(self, num_blocks: int) -> list[int]:
        """Hand out blocks with one reference each, forgetting the least recently used content; needs enough free."""
        if num_blocks > len(self._free):
            raise BlockPoolCorrupt(f"{num_blocks} blocks asked for, {len(self._free)} free")
        block_ids = []
        for _ in range(num_blocks):
            block_id, _ = self._free.popitem(last=False)
            self._forget(block_id)
            self._num_refs[block_id] = 1
            block_ids.append(block_id)
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
                self._free[block_id] = None
                if self._keys[block_id] is None:
                    self._free.move_to_end(block_id, last=False)
                freed.append(block_id)
        return freed

    def register(self, block_id: int, key: BlockKey) -> None:
        """Make a full, computed block findable; if another block holds the same content, that one stays the entry."""
        if key.digest not in self._digest_to_block and self._keys[block_id] is None:
            self._digest_to_block[key.digest] = block_id
            self._keys[block_id] = key

    def forget(self, block_ids: Iterable[int]) -> None:
        """Make these blocks unfindable (their content is suspect); references stay."""
        for block_id in block_ids:
            self._forget(block_id)

    def _forget(self, block_id: int) -> None:
        key = self._keys[block_id]
        if key is not None:
            del self._digest_to_block[key.digest]
            self._keys[block_id] = None

    def forget_all(self) -> None:
        """Empty the prefix cache."""
        self.forget(range(self.num_blocks))

    def check_integrity(self, tables: Iterable[list[int]]) -> None:
        """Raise BlockPoolCorrupt unless the counts equal the live `tables` and every block is in one state."""
        expected = Counter(block_id for table in tables for block_id in table)
        for block_id, num_refs in enumerate(self._num_refs):
            if num_refs != expected[block_id]:
                raise BlockPoolCorrupt(f"block {block_id} has {num_refs} references, tables hold {expected[block_id]}")
            if (num_refs == 0) != (block_id in self._free):
                raise BlockPoolCorrupt(f"block {block_id} with {num_refs} references is on the wrong side of the list")
        for digest, block_id in self._digest_to_block.items():
            key = self._keys[block_id]
            if key is None or key.digest != digest:
                raise BlockPoolCorrupt(f"block {block_id} is found under a key that is not its own")
        if sum(key is not None for key in self._keys) != len(self._digest_to_block):
            raise BlockPoolCorrupt("a block has a key under which it cannot be found")
