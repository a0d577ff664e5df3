"""The blocks of one sequence in order, and the content keys by which full blocks are found again."""

from __future__ import annotations

import hashlib
from array import array

import msgspec


class BlockKey(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """What a full block holds: its tokens, after everything that its parents hold. The first parent holds the salt.

    The digest is chained over all of it, but equal digests are not trusted: a hit compares salt and tokens.
    """

    digest: bytes
    token_ids: tuple[int, ...]
    parent: BlockKey | None = None
    """None for a root, which stands before the first block."""
    salt: str = ""


def is_same_content(left: BlockKey | None, right: BlockKey | None) -> bool:
    """Whether two keys stand for equal tokens after equal parents; quick where they share a parent."""
    while left is not right:
        if left is None or right is None or left.token_ids != right.token_ids or left.salt != right.salt:
            return False
        left, right = left.parent, right.parent
    return True


def num_blocks_for(num_tokens: int, block_size: int) -> int:
    """Blocks that hold `num_tokens` tokens."""
    return -(-num_tokens // block_size)


def root_key(salt: str) -> BlockKey:
    """The key before the first block of everything under one salt."""
    return BlockKey(hashlib.sha256(salt.encode()).digest(), (), salt=salt)


def chain_key(parent: BlockKey, token_ids: list[int]) -> BlockKey:
    """Key of the block `token_ids` after `parent`: its digest is SHA-256 over both, cut to 128 bits."""
    digest = hashlib.sha256(parent.digest + array("q", token_ids).tobytes()).digest()[:16]
    return BlockKey(digest, tuple(token_ids), parent)


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
        self._root = root_key(salt)

    def num_missing_blocks(self, num_tokens: int) -> int:
        """Blocks to add before `num_tokens` tokens fit."""
        return max(0, num_blocks_for(num_tokens, self.block_size) - len(self.block_ids))

    def extend_keys(self, token_ids: list[int], num_tokens: int) -> None:
        """Compute the keys of all full blocks among the first `num_tokens` of `token_ids`."""
        size = self.block_size
        for index in range(len(self.keys), num_tokens // size):
            parent = self.keys[index - 1] if index else self._root
            self.keys.append(chain_key(parent, token_ids[index * size : (index + 1) * size]))

    def take_full(self, token_ids: list[int], num_tokens: int) -> list[tuple[int, BlockKey]]:
        """Blocks that the first `num_tokens` tokens fill and that were not taken before; they count as registered."""
        first, self.num_registered = self.num_registered, num_tokens // self.block_size
        self.extend_keys(token_ids, num_tokens)
        full = slice(first, self.num_registered)
        return list(zip(self.block_ids[full], self.keys[full], strict=True))

    def clear(self) -> list[int]:
        """Give up all blocks and return their ids."""
        block_ids = self.block_ids
        self.block_ids = []
        self.num_registered = 0
        return block_ids
