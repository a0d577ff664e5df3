"""What the block pool promises: one state for each block, no double release, the right block evicted."""

from __future__ import annotations

import pytest

from batching.block_pool import BlockPool, BlockPoolCorrupt
from batching.block_table import BlockKey, BlockTable
from contracts.generation import Tenant


def cached_block(pool: BlockPool, name: str) -> BlockKey:
    """Compute one block under a key of its own and release it."""
    key = BlockKey(name.encode(), (1,))
    block_ids = pool.allocate(1)
    pool.register(block_ids[0], key)
    pool.release(block_ids)
    return key


def test_allocated_blocks_are_distinct_and_leave_the_free_list() -> None:
    pool = BlockPool(4)
    block_ids = pool.allocate(3)
    assert len(set(block_ids)) == 3
    assert pool.num_free_blocks == 1


def test_more_blocks_than_are_free_are_refused_and_none_is_taken() -> None:
    pool = BlockPool(2)
    with pytest.raises(BlockPoolCorrupt, match="3 blocks asked for, 2 free"):
        pool.allocate(3)
    assert pool.num_free_blocks == 2


def test_double_release_raises_and_leaves_one_entry_on_the_free_list() -> None:
    pool = BlockPool(2)
    block_ids = pool.allocate(1)
    pool.release(block_ids)
    with pytest.raises(BlockPoolCorrupt, match="released more often"):
        pool.release(block_ids)
    assert pool.num_free_blocks == 2
    pool.check_integrity([])


def test_shared_block_is_free_only_after_the_last_release() -> None:
    pool = BlockPool(2)
    block_ids = pool.allocate(1)
    pool.acquire(block_ids)
    assert pool.release(block_ids) == []
    assert pool.release(block_ids) == block_ids


def test_empty_blocks_are_handed_out_before_cached_ones() -> None:
    pool = BlockPool(2)
    key = cached_block(pool, "a")
    pool.release(pool.allocate(1))
    pool.allocate(1)
    assert len(pool.match([key])) == 1


def test_least_recently_used_content_is_evicted_first() -> None:
    pool = BlockPool(3)
    first, second, third = (cached_block(pool, name) for name in "abc")
    used_again = pool.match([first])
    pool.acquire(used_again)
    pool.release(used_again)
    pool.allocate(1)
    assert [len(pool.match([key])) for key in (first, second, third)] == [1, 0, 1]


def test_tail_of_a_sequence_is_evicted_before_its_head() -> None:
    pool = BlockPool(3)
    table = BlockTable(1, "")
    table.extend_keys([0, 1, 2], 3)
    keys = table.keys
    block_ids = pool.allocate(3)
    pool.register(block_ids[0], keys[0])
    pool.register(block_ids[1], keys[1])
    pool.register(block_ids[2], keys[2])
    pool.release(block_ids)
    pool.allocate(1)
    assert pool.match(keys) == block_ids[:2]


def test_match_stops_at_the_first_unknown_key() -> None:
    pool = BlockPool(3)
    table = BlockTable(1, "")
    table.extend_keys([0, 1, 2], 3)
    block_ids = pool.allocate(3)
    pool.register(block_ids[0], table.keys[0])
    pool.register(block_ids[2], table.keys[2])
    assert pool.match(table.keys) == block_ids[:1]


def test_equal_digests_with_other_tokens_do_not_match() -> None:
    """S66; collisions of parents and salts: test_hash_collisions."""
    pool = BlockPool(1)
    pool.register(pool.allocate(1)[0], BlockKey(b"same", (0, 1)))
    assert pool.match([BlockKey(b"same", (0, 2))]) == []


def test_second_block_with_the_same_content_does_not_replace_the_first() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    key = BlockKey(b"a", (1,))
    pool.register(first, key)
    pool.register(second, key)
    assert pool.match([key]) == [first]
    assert pool.release([second]) == [second]
    pool.check_integrity([[first]])


def test_matched_block_is_not_evicted_while_it_is_referenced() -> None:
    pool = BlockPool(2)
    key = cached_block(pool, "a")
    matched = pool.match([key])
    assert pool.num_free_among(matched) == 1
    pool.acquire(matched)
    pool.allocate(1)
    assert pool.match([key]) == matched
    assert pool.num_free_blocks == 0


def test_forgotten_block_is_not_found_but_keeps_its_references() -> None:
    pool = BlockPool(1)
    key = BlockKey(b"a", (1,))
    block_ids = pool.allocate(1)
    pool.register(block_ids[0], key)
    pool.forget(block_ids)
    assert pool.match([key]) == []
    assert pool.num_refs(block_ids[0]) == 1


def test_forgetting_everything_empties_the_cache_and_frees_nothing_in_use() -> None:
    pool = BlockPool(3)
    key = cached_block(pool, "a")
    in_use = pool.allocate(1)
    pool.forget_all()
    assert pool.match([key]) == []
    assert pool.num_cached_blocks == 0
    pool.check_integrity([in_use])


@pytest.mark.parametrize("tables", [[], [[0], [0]], [[1]]], ids=["leaked", "shared_too_often", "other_block"])
def test_integrity_check_notices_tables_that_disagree(tables: list[list[int]]) -> None:
    pool = BlockPool(2)
    assert pool.allocate(1) == [0]
    with pytest.raises(BlockPoolCorrupt, match="references"):
        pool.check_integrity(tables)


def test_integrity_check_notices_a_referenced_block_on_the_free_list() -> None:
    pool = BlockPool(1)
    table = pool.allocate(1)
    pool._free.add(table, None)
    with pytest.raises(BlockPoolCorrupt, match="wrong side"):
        pool.check_integrity([table])


def test_integrity_check_notices_a_key_that_cannot_be_found() -> None:
    pool = BlockPool(1)
    cached_block(pool, "a")
    pool._digest_to_block.clear()
    with pytest.raises(BlockPoolCorrupt, match="cannot be found"):
        pool.check_integrity([])


def test_integrity_check_notices_an_entry_without_its_key() -> None:
    pool = BlockPool(1)
    cached_block(pool, "a")
    pool._keys[0] = None
    with pytest.raises(BlockPoolCorrupt, match="not its own"):
        pool.check_integrity([])


def test_forgotten_free_block_is_handed_out_before_cached_ones() -> None:
    pool = BlockPool(3)
    keys = [cached_block(pool, name) for name in "abc"]
    forgotten = pool.match(keys[1:2])
    pool.forget(forgotten)
    assert pool.num_cached_blocks == 2
    assert pool.allocate(1) == forgotten
    assert [len(pool.match([key])) for key in keys] == [1, 0, 1]


def test_cached_block_counts_for_the_tenant_that_computed_it() -> None:
    pool, loud = BlockPool(4), Tenant(name="loud")
    quiet_key = cached_block(pool, "quiet")
    block_ids = pool.allocate(3)
    for block_id in block_ids:
        pool.register(block_id, BlockKey(bytes([block_id]), (1,)), loud)
    pool.release(block_ids)
    pool.allocate(2)
    assert len(pool.match([quiet_key])) == 1


def test_integrity_check_notices_a_block_in_the_list_of_another_tenant() -> None:
    pool = BlockPool(1)
    cached_block(pool, "a")
    pool._tenants[0] = Tenant(name="other")
    with pytest.raises(BlockPoolCorrupt, match="tenants hold"):
        pool.check_integrity([])
