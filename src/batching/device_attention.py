"""The paged attention of transformers' own modules when a step's inputs are on the device already."""

from __future__ import annotations

import torch

from batching.attention.reference import AttentionVariant, write_rows
from batching.device_ops import DeviceOps, DeviceStep
from batching.kv_cache import LayerCache


class DeviceAttention:
    """Stands behind PagedLayer as an attention.paged_layer.AttentionBackend. Owner: the runner thread."""

    def __init__(self, ops: DeviceOps) -> None:
        self._ops = ops
        self._step: DeviceStep | None = None

    def begin_on_device(self, step: DeviceStep) -> None:
        """Called once before the layers of a step run; nothing is asked of the device."""
        block_size = step.inputs.block_size
        self._step = step
        self._block_of = (step.inputs.slots // block_size).long()
        self._offset_of = (step.inputs.slots % block_size).long()

    def forward(
        self, cache: LayerCache, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant
    ) -> torch.Tensor:
        """As AttentionBackend.forward. Padding may share slots, which are nobody's."""
        assert self._step is not None  # noqa: S101 (begin_on_device was called)
        write_rows(cache.k, k, self._block_of, self._offset_of, cache.k_scale)
        write_rows(cache.v, v, self._block_of, self._offset_of, cache.v_scale)
        return self._ops.attend(q, cache, self._step, variant)
