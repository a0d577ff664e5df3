"""Sizes are read as written, and what is no size is refused with an example."""

from __future__ import annotations

import pytest

from contracts.sizes import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("512MiB", 512 * 2**20),
        ("4GiB", 4 * 2**30),
        ("4 gib", 4 * 2**30),
        (" 1.5GB ", 1_500_000_000),
        ("1e9", 10**9),
        ("2E+3kb", 2_000_000),
        ("1048576", 2**20),
        ("7b", 7),
        ("1TiB", 2**40),
    ],
)
def test_size_is_read_with_its_unit(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1GiB", "4 Gigs", "1,5GB", "0", "0.1B", "inf", "1e999", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a size|less than one byte"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(7, "7 B"), (1536, "1.5 KiB"), (4 * 2**30, "4.0 GiB"), (5 * 2**40, "5.0 TiB")]
)
def test_size_is_written_in_binary_units(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


def test_more_than_any_machine_has_is_refused() -> None:
    with pytest.raises(ValueError, match="more than any machine"):
        parse_bytes("9" * 400 + "GiB")
