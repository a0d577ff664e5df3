"""What every Triton kernel asks first: is Triton here, is it interpreting, how wide is a tile, how many warps.

Importing this module imports neither Triton nor torch's CUDA part, so the path on a CPU may ask freely. The modules
named `*_triton.py` import Triton at their top and are imported only after `why_unavailable` had nothing to say. Knows
no kernel.
"""

from __future__ import annotations

import importlib
from functools import cache

import torch

MAX_TILE = 65536
"""Elements of the widest row that one program holds at once: 256 float32 registers in each of 256 threads."""
ELEMENTS_PER_WARP = 512
MAX_WARPS = 16


@cache
def why_unavailable() -> str | None:
    """None where Triton can be imported, else the reason in one line."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"Triton cannot be imported ({error}): pip install triton"
    return None


def has_triton() -> bool:
    return why_unavailable() is None


def is_interpreted() -> bool:
    """True where kernels decorated now run in Triton's interpreter, on a CPU (TRITON_INTERPRET=1)."""
    if not has_triton():
        return False
    knobs = importlib.import_module("triton").knobs
    return bool(knobs.runtime.interpret)


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`, at least 1: the extent of a Triton tile."""
    return 1 << max(0, number - 1).bit_length()


def warps_for(tile: int) -> int:
    """Warps for a program that holds `tile` elements at once: a power of two from 1 to MAX_WARPS."""
    return max(1, min(MAX_WARPS, next_power_of_two(tile) // ELEMENTS_PER_WARP))


def whole_row_tile(width: int) -> int:
    """The tile that holds a whole row; ValueError where a row is too wide for one program."""
    tile = next_power_of_two(width)
    if tile > MAX_TILE:
        raise ValueError(f"a row of {width} elements needs a tile of {tile}, at most {MAX_TILE} fit into one program.")
    return tile


def check_rows(name: str, tensor: torch.Tensor, shape: tuple[int | None, ...]) -> None:
    """ValueError unless `tensor` is contiguous and has `shape`, where None stands for any extent."""
    fits = len(tensor.shape) == len(shape) and all(
        wanted is None or wanted == found for wanted, found in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}.")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} is not contiguous; its strides are {tensor.stride()}.")
