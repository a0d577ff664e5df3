"""Matrix products with weights packed once at load, where oneDNN offers it; plain torch otherwise.

`F.linear` packs its weight again at every call. The two oneDNN calls used here are private to torch, so `can_pack`
tries them on a small product first and anything unexpected means plain products.
"""

from __future__ import annotations

import torch
from torch.nn import functional

PACKING_ROWS = 32
"""Batch size for which oneDNN chooses the layout; others work with the same packed weight."""
EXACT_ROWS = 8
ROW_STEP = 16
"""oneDNN generates code for every new number of rows: 7-11 ms for the four products of a layer, against 0.4-1.4 ms
once it has it (2026-11-20, 2 cores, Xeon with AMX, shapes of 5.8 M and 135 M models). So rows come in few sizes."""


def padded_rows(num_rows: int) -> int:
    """The number of rows to compute for `num_rows`: itself up to EXACT_ROWS, else the next multiple of ROW_STEP."""
    return num_rows if num_rows <= EXACT_ROWS else -(-num_rows // ROW_STEP) * ROW_STEP


class Linear:
    """x `[T, in]` -> `[T, out]`; holds its weight packed or plain. Owner: the runner thread."""

    __slots__ = ("_bias", "_packed", "_weight", "out_features")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, is_packed: bool) -> None:
        self.out_features = weight.shape[0]
        self._bias = None if bias is None else bias.contiguous()
        self._packed: torch.Tensor | None = None
        self._weight: torch.Tensor | None = None
        if is_packed:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKING_ROWS)
        else:
            self._weight = weight.contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is not None:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
            return out
        assert self._weight is not None  # noqa: S101 (one of the two is set at construction)
        return functional.linear(x, self._weight, self._bias)


class PackedLinear(torch.nn.Module):
    """Takes the place of an nn.Linear inside a transformers model."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x `[..., in]` -> `[..., out]`."""
        rows = x.reshape(-1, x.shape[-1])
        num_rows = rows.shape[0]
        padded = functional.pad(rows, (0, 0, 0, padded_rows(num_rows) - num_rows))
        return self._linear(padded)[:num_rows].view(*x.shape[:-1], self._linear.out_features)


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """True if this torch packs weights of the dtype and the packed product is right."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 32, generator=generator).to(dtype)
    weight = torch.randn(48, 32, generator=generator).to(dtype)
    try:
        packed = Linear(weight, None, is_packed=True)(x)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    return torch.allclose(packed.float(), functional.linear(x, weight).float(), rtol=2e-2, atol=2e-2)


def pack_linears(model: torch.nn.Module) -> int:
    """Replace every nn.Linear under `model` by its packed form, freeing the plain weights; returns how many.

    A weight that another module shares (tied embeddings) is copied by packing and stays alive there.
    """
    num_packed = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, PackedLinear(Linear(child.weight.data, _data(child.bias), is_packed=True)))
                num_packed += 1
    return num_packed


def _data(parameter: torch.Tensor | None) -> torch.Tensor | None:
    return None if parameter is None else parameter.data
