"""What a block table promises: as many blocks as its tokens need, and keys that say what came before."""

from __future__ import annotations

import pytest

from batching.block_table import BlockTable, chain_key, num_blocks_for, root_key


def keys_of(salt: str, token_ids: list[int], block_size: int = 2) -> list[bytes]:
    table = BlockTable(block_size, salt)
    table.extend_keys(token_ids, len(token_ids))
    return [key.digest for key in table.keys]


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_last_block_may_be_partly_filled(num_tokens: int, num_blocks: int) -> None:
    assert num_blocks_for(num_tokens, 16) == num_blocks


@pytest.mark.parametrize(("num_tokens", "num_missing"), [(1, 0), (4, 0), (5, 1), (6, 1), (7, 2)])
def test_missing_blocks_are_those_beyond_the_ones_held(num_tokens: int, num_missing: int) -> None:
    table = BlockTable(2, "")
    table.block_ids = [5, 9]
    assert table.num_missing_blocks(num_tokens) == num_missing


def test_only_full_blocks_have_keys() -> None:
    assert len(keys_of("", [1, 2, 3, 4, 5])) == 2


def test_keys_are_computed_once_and_grow_with_the_tokens() -> None:
    table = BlockTable(2, "")
    table.extend_keys([1, 2, 3, 4], 3)
    first = table.keys[0]
    table.extend_keys([1, 2, 3, 4], 4)
    assert table.keys[0] is first
    assert [key.token_ids for key in table.keys] == [(1, 2), (3, 4)]


def test_equal_prefixes_have_equal_keys() -> None:
    assert keys_of("", [1, 2, 3, 4])[0] == keys_of("", [1, 2, 9, 9])[0]


def test_equal_tokens_after_another_prefix_have_another_key() -> None:
    assert keys_of("", [1, 2, 3, 4])[1] != keys_of("", [9, 9, 3, 4])[1]


def test_equal_tokens_under_another_salt_have_other_keys() -> None:
    assert not set(keys_of("a", [1, 2, 3, 4])) & set(keys_of("b", [1, 2, 3, 4]))


@pytest.mark.parametrize(("left", "right"), [([1, 2], [2, 1]), ([0], [0, 0]), ([256], [1]), ([1, 0], [1])])
def test_different_tokens_have_different_keys(left: list[int], right: list[int]) -> None:
    assert chain_key(root_key(""), left).digest != chain_key(root_key(""), right).digest


def test_largest_token_ids_have_keys() -> None:
    assert chain_key(root_key(""), [2**31 - 1, 0]).token_ids == (2**31 - 1, 0)


def test_cleared_table_gives_up_its_blocks_and_keeps_its_keys() -> None:
    table = BlockTable(2, "")
    table.extend_keys([1, 2], 2)
    table.block_ids = [3, 4]
    table.num_registered = 1
    assert table.clear() == [3, 4]
    assert (table.block_ids, table.num_registered, len(table.keys)) == ([], 0, 1)
