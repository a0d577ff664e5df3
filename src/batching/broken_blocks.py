"""Gives blocks back to the pool, and has those with broken numbers cleared before anybody uses them again. Pure."""

from __future__ import annotations

from batching.block_pool import BlockPool


class BrokenBlocks:
    """Owner: the Scheduler, which gives back every block through it."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._suspects: set[int] = set()
        """Hold broken numbers and are still referenced; cleared once they are free."""
        self._to_clear: list[int] = []

    @property
    def num_suspects(self) -> int:
        return len(self._suspects)

    def suspect(self, block_ids: list[int]) -> None:
        """Make blocks that hold broken numbers unfindable, and have them cleared before they are used again."""
        self._pool.forget(block_ids)
        self._suspects.update(block_ids)
        self._clear(block_ids)

    def release(self, block_ids: list[int]) -> None:
        """Give up one reference to each."""
        self._clear(self._pool.release(block_ids))

    def take(self) -> list[int]:
        """The blocks that the next step clears; they are its business from here on."""
        cleared, self._to_clear = self._to_clear, []
        return cleared

    def free_all(self) -> None:
        """Nobody holds any block: whatever was broken is cleared by the next step."""
        self._to_clear = sorted(self._suspects.union(self._to_clear))
        self._suspects = set()

    def _clear(self, block_ids: list[int]) -> None:
        """Have those of these blocks that are suspect and free cleared by the next step."""
        clear = {block_id for block_id in block_ids if self._pool.num_refs(block_id) == 0} & self._suspects
        self._suspects -= clear
        self._to_clear += sorted(clear)
