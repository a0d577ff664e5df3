"""The blocks of one sequence in order, and the content keys by which full blocks are found again."""

from __future__ import annotations

import hashlib
from array import array

import msgspec


class BlockKey(msgspec.Struct, frozen=True, array_like=True):
    """What a full block holds: a digest chained over everything before it, and the block's own tokens.

    Equal digests are not trusted alone: a hit also compares the tokens.
    """

    digest: bytes
    token_ids: tuple[int, ...]


def num_blocks_for(num_tokens: int, block_size: int) -> int:
    """Blocks that hold `num_tokens` tokens."""
    return -(-num_tokens // block_size)


def chain_key(parent_digest: bytes, token_ids: list[int]) -> BlockKey:
    """Key of the block `token_ids` after a prefix with `parent_digest`: SHA-256 over both, cut to 128 bits."""
    digest = hashlib.sha256(parent_digest + array("q", token_ids).tobytes()).digest()[:16]
    return BlockKey(digest, tuple(token_ids))


class BlockTable:
    """Position p of a sequence lives in block_ids[p // block_size]. Owner: the Scheduler, through its Sequence.

    `keys` grows with the tokens and outlives preemption; `num_registered` counts the leading blocks whose key the
    pool knows (matched or registered), so that each is registered once.
    """

    __slots__ = ("_root", "block_ids", "block_size", "keys", "num_registered")

    def __init__(self, block_size: int, salt: str) -> None:
        self.block_size = block_size
        self.block_ids: list[int] = []
        self.keys: list[BlockKey] = []
        self.num_registered = 0
        self._root = hashlib.sha256(salt.encode()).digest()

    def num_missing_blocks(self, num_tokens: int) -> int:
        """Blocks to add before `num_tokens` tokens fit."""
        return max(0, num_blocks_for(num_tokens, self.block_size) - len(self.block_ids))

    def extend_keys(self, token_ids: list[int], num_tokens: int) -> None:
        """Compute the keys of all full blocks among the first `num_tokens` of `token_ids`."""
        size = self.block_size
        for index in range(len(self.keys), num_tokens // size):
            parent = self.keys[index - 1].digest if index else self._root
            self.keys.append(chain_key(parent, token_ids[index * size : (index + 1) * size]))

    def clear(self) -> list[int]:
        """Give up all blocks and return their ids."""
        block_ids = self.block_ids
        self.block_ids = []
        self.num_registered = 0
        return block_ids
