"""Closed blocks and tail are the whole text, however it comes, and a block is closed only where none can change it."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.terminal.markdown_blocks import BlockSplitter

BLOCKS = [
    "# Heading\n\n",
    "A paragraph\nof two lines.\n\n",
    "- one\n- two\n\n  still two\n\n",
    "```py\nx = 1\n\n# no heading\n```\n\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n",
    "> quoted\n\n",
    "1. a\n\n2. b\n\n",
]
TEXT = "".join(BLOCKS) + "the end"


@pytest.mark.parametrize("piece_len", [1, 3, 17])
def test_blocks_are_closed_one_by_one(piece_len: int) -> None:
    splitter = BlockSplitter()
    pieces = [TEXT[start : start + piece_len] for start in range(0, len(TEXT), piece_len)]
    closed = list(chain.from_iterable(map(splitter.feed, pieces)))
    assert [*closed, splitter.tail] == [*BLOCKS[: len(closed)], "".join(BLOCKS[len(closed) :]) + "the end"]
    assert len(closed) >= len(BLOCKS) - 1


def test_open_code_is_not_cut() -> None:
    splitter = BlockSplitter()
    assert splitter.feed("```\na\n\n# b\n\n- c\n\n") == []


def test_each_block_is_parsed_once() -> None:
    """The tail stays short, so that the cost of a long answer does not grow with its square."""
    splitter = BlockSplitter()
    closed = [splitter.feed(f"paragraph {number}\n\n") for number in range(50)]
    assert [len(blocks) for blocks in closed] == [0, *[1] * 49]
    assert splitter.tail == "paragraph 49\n\n"


@given(st.lists(st.text(alphabet="ab#-*`>|1. \n\t\r\u2028", max_size=12), max_size=12))
def test_nothing_is_lost_or_changed(pieces: list[str]) -> None:
    splitter = BlockSplitter()
    closed = "".join(chain.from_iterable(map(splitter.feed, pieces)))
    assert closed + splitter.tail == "".join(pieces)
