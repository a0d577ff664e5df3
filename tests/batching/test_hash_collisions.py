"""S66: a block is found by a hash, but only equal tokens after equal parents under an equal salt are a hit."""

from __future__ import annotations

import random
from typing import NoReturn

import pytest

from batching import block_table
from batching.block_pool import BlockPool
from batching.block_table import BlockKey, BlockTable, is_same_content, root_key
from tests.batching.core_battery import random_config, random_request
from tests.batching.core_world import World


class NoMemory(dict[bytes, int]):
    """Stands for the World's record of contents by digest, which cannot be kept when digests collide."""

    def setdefault(self, key: bytes, default: int = 0) -> int:
        return default


class WeakHash:
    """SHA-256 cut to so few values that most blocks collide."""

    def __init__(self, num_values: int) -> None:
        self._num_values = num_values

    def sha256(self, data: bytes) -> WeakHash:
        self._value = sum(data) % self._num_values
        return self

    def digest(self) -> bytes:
        return bytes([self._value]) * 16


@pytest.mark.parametrize("num_values", [1, 2, 5])
@pytest.mark.parametrize("seed", range(8))
def test_outputs_are_right_when_most_blocks_collide(
    monkeypatch: pytest.MonkeyPatch, num_values: int, seed: int
) -> None:
    monkeypatch.setattr(block_table, "hashlib", WeakHash(num_values))
    rng = random.Random(seed)
    world = World(random_config(rng))
    world.values_by_digest = NoMemory()
    for _ in range(60):
        world.submit(random_request(rng))
        world.step()
    world.drain()


def test_hits_remain_where_contents_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_table, "hashlib", WeakHash(1))
    pool, tables = BlockPool(4), [BlockTable(2, salt) for salt in ("a", "a", "b")]
    for table in tables:
        table.extend_keys([1, 2], 2)
    block_ids = pool.allocate(1)
    pool.register(block_ids[0], tables[0].keys[0])
    assert [pool.match(table.keys) for table in tables] == [block_ids, block_ids, []]


def test_child_is_found_after_its_parent_was_computed_anew() -> None:
    pool, tables = BlockPool(3), [BlockTable(1, ""), BlockTable(1, "")]
    for table in tables:
        table.extend_keys([1, 2], 2)
    parent, child, again = pool.allocate(3)
    pool.register(parent, tables[0].keys[0])
    pool.register(child, tables[0].keys[1])
    pool.forget([parent])
    pool.register(again, tables[1].keys[0])
    assert pool.match(tables[1].keys) == [again, child]


def test_comparison_ends_at_the_first_shared_parent() -> None:
    class Unread(BlockKey, frozen=True, array_like=True):
        def __getattribute__(self, name: str) -> NoReturn:
            raise AssertionError("a shared parent was compared")

    shared = Unread(b"", ())
    assert is_same_content(BlockKey(b"", (1,), shared), BlockKey(b"", (1,), shared))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (root_key("a"), root_key("b")),
        (BlockKey(b"", (1,), root_key("")), BlockKey(b"", (2,), root_key(""))),
        (BlockKey(b"", (1,), root_key("")), BlockKey(b"", (1,), BlockKey(b"", (), root_key("")))),
    ],
    ids=["salt", "tokens", "length"],
)
def test_other_content_is_not_the_same(left: BlockKey, right: BlockKey) -> None:
    assert not is_same_content(left, right)
