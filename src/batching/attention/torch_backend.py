"""The attention backend in plain torch: the reference on a CPU, and what CUDA runs where there is no Triton."""

from __future__ import annotations

import torch

from batching.attention.reference import AttentionVariant, attend_sequence, write_rows
from batching.kv_cache import LayerCache
from batching.step_input import StepInput


class TorchBackend:
    """One gather and one product per sequence. Owner: the runner thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._step: StepInput | None = None

    def begin(self, step: StepInput) -> None:
        self._step = step
        self._block_of = torch.from_numpy(step.block_of).to(self._device, torch.int64)
        self._offset_of = torch.from_numpy(step.offset_of).to(self._device, torch.int64)
        self._sequences = [
            (row, 1, int(length), torch.from_numpy(table).to(self._device, torch.int64))
            for row, (table, length) in enumerate(zip(step.tables, step.context_lens, strict=True))
        ] + [
            (chunk.first_row, chunk.num_tokens, chunk.start + chunk.num_tokens, torch.from_numpy(chunk.block_ids))
            for chunk in step.prefills
        ]

    def forward(
        self, cache: LayerCache, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant
    ) -> torch.Tensor:
        write_rows(cache.k, k, self._block_of, self._offset_of, cache.k_scale)
        write_rows(cache.v, v, self._block_of, self._offset_of, cache.v_scale)
        out = q.new_empty(q.shape[1], q.shape[0], v.shape[2])
        for row, num_tokens, context_len, table in self._sequences:
            rows = slice(row, row + num_tokens)
            num_blocks = -(-context_len // cache.block_size)
            block_ids = table[:num_blocks].to(self._device)
            out[rows] = attend_sequence(q[:, rows], cache, block_ids, context_len, variant)
        return out
