"""Launch configurations: every shape has one, a measured one is preferred, and parts are counted as kernels do."""

from __future__ import annotations

import numpy as np
import pytest

from batching.kernels import paged_attention_config
from batching.kernels.paged_attention_config import (
    MAX_SHORT_QUERIES,
    LaunchConfig,
    LaunchShape,
    launch_config,
    num_parts_of,
    num_split_programs,
    padded,
)

LLAMA = LaunchShape(is_split=True, group=4, k_dim=128, v_dim=128, item_bytes=2)


@pytest.mark.parametrize(("dim", "expected"), [(1, 16), (16, 16), (17, 32), (80, 128), (96, 128), (128, 128)])
def test_dims_are_padded_to_what_a_product_takes(dim: int, expected: int) -> None:
    assert padded(dim) == expected


@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize("group", [1, 3, 7, 16, 64])
@pytest.mark.parametrize("dim", [16, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("item_bytes", [1, 2, 4])
def test_a_tile_has_room_for_all_heads_of_a_token(is_split: bool, group: int, dim: int, item_bytes: int) -> None:
    config = launch_config(LaunchShape(is_split=is_split, group=group, k_dim=dim, v_dim=dim, item_bytes=item_bytes))
    assert config.block_m >= group
    assert {config.block_m, config.block_n} <= {16, 32, 64, 128}


def test_dims_beyond_the_largest_tile_are_refused() -> None:
    shape = LaunchShape(is_split=True, group=1, k_dim=512, v_dim=64, item_bytes=2)
    with pytest.raises(ValueError, match="head dims 512 and 64: the kernel takes at most 256"):
        launch_config(shape)


def test_a_measured_configuration_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = LaunchConfig(32, 32, 2, 4)
    monkeypatch.setitem(paged_attention_config.MEASURED, LLAMA, measured)
    assert launch_config(LLAMA) == measured


def test_parts_are_query_tokens_times_splits_of_short_sequences_that_have_several() -> None:
    query_lens = np.array([1, 1, 4, MAX_SHORT_QUERIES + 1, 0], np.int32)
    context_lens = np.array([512, 513, 1025, 4000, 0], np.int32)
    assert num_parts_of(query_lens, context_lens, 512).tolist() == [0, 2, 12, 0, 0]


@pytest.mark.parametrize(("num_tiles", "num_splits", "expected"), [(0, 8, 8), (1, 8, 8), (256, 8, 4), (4096, 8, 1)])
def test_splits_are_shared_out_until_the_device_is_full(num_tiles: int, num_splits: int, expected: int) -> None:
    assert num_split_programs(num_tiles, num_splits) == expected
