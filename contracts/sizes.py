"""Amounts of memory as people write them: the one place where `512MiB` becomes a number of bytes."""

from __future__ import annotations

import math
import re

_UNIT_BYTES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,2})?) *(?P<unit>[A-Za-z]*)")


def parse_bytes(text: str) -> int:
    """Bytes meant by `512MiB`, `4 GiB`, `1.5gb` or `1e9`; whole bytes, rounded down.

    Raises ValueError when the text is not a size, its unit is unknown, or it is less than one byte.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = match["unit"].lower() if match else None
    if match is None or unit not in _UNIT_BYTES:
        raise ValueError(f"{text!r} is not a size: write a number and a unit, such as 512MiB, 4GiB, 1.5GB or 1e9")
    amount = float(match["number"]) * _UNIT_BYTES[unit]
    if not math.isfinite(amount):
        raise ValueError(f"{text[:20]!r}... is more than any machine has")
    num_bytes = int(amount)
    if num_bytes < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return num_bytes


def format_bytes(num_bytes: int) -> str:
    """A size as people read it, in binary units: 1536 is `1.5 KiB`."""
    amount = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
