"""torch tensors as the NumPy arrays that numba kernels take, without a copy."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch


def as_array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A view of a CPU tensor; bfloat16 appears as uint16 bits."""
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    array: npt.NDArray[Any] = tensor.numpy()
    return array
