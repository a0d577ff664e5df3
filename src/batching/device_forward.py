"""Which forward pass serves a loaded model over device rows: the lean one where it is proven equal, else transformers'.

As batching.forward does for host steps; the proof runs the operations of the device, so that they are proven too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
import torch

from batching.attention.paged_layer import PagedLayer
from batching.attention_bounds import bounds_of
from batching.device_attention import DeviceAttention
from batching.device_llama import DeviceLlama, is_recognised
from batching.device_ops import DeviceOps, DeviceStep, TorchOps
from batching.forward import is_whole
from batching.fused_projections import fuse_projections
from batching.kernels.paged_attention_config import SPLIT_TOKENS
from batching.kernels.step_input_torch import StepInputs
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel
from batching.probe import TOLERANCE, probe_plans, relative_difference
from batching.row_book import RowBook, RowPlan, packed_writes
from batching.row_tables import RowShape, RowTables

log = structlog.get_logger("quire.engine")

PROBE_LEN = SPLIT_TOKENS + 20
"""Tokens of the chunk that a proof computes: the decode after it looks at more than one split."""


class DeviceForward(Protocol):
    """One packed forward pass: logits `[R, at least vocab]`, a row for each of `logit_tokens`."""

    def __call__(self, step: DeviceStep) -> torch.Tensor: ...


class GenericDeviceForward:
    """transformers' own forward, with the attention of the device hanging on its modules."""

    def __init__(self, loaded: LoadedModel, pool: KVCachePool, ops: DeviceOps) -> None:
        self._model = loaded.model
        self._attention = DeviceAttention(ops)
        for layer, cache in zip(loaded.layers, pool.layers, strict=True):
            layer.module.paged_layer = PagedLayer(cache, self._attention)  # type: ignore[assignment]

    def __call__(self, step: DeviceStep) -> torch.Tensor:
        self._attention.begin_on_device(step)
        output = self._model(
            input_ids=step.inputs.ids[None],
            position_ids=step.inputs.positions[None],
            use_cache=False,
            logits_to_keep=step.inputs.logit_tokens.long(),
        )
        logits: torch.Tensor = output.logits[0]
        return logits


class Selected(msgspec.Struct, frozen=True):
    """The forward pass that serves, and the model that it holds."""

    forward: DeviceForward
    loaded: LoadedModel


@torch.inference_mode()
def select_device_forward(
    loaded: LoadedModel, pool: KVCachePool, ops: DeviceOps, reload: Callable[[], LoadedModel]
) -> Selected | None:
    """The fastest pass that gives the right logits with these operations; None where they are not right at all.

    Raises what the operations raise where they cannot run. The lean pass takes the weights out of the model; should
    it then disagree, `reload` brings the model back.
    """
    expected = probe_logits(GenericDeviceForward(loaded, pool, TorchOps()), loaded, pool, TorchOps())
    generic = GenericDeviceForward(loaded, pool, ops)
    difference = relative_difference(probe_logits(generic, loaded, pool, ops), expected)
    if not difference <= TOLERANCE[loaded.dtype]:  # nor is what is no number
        log.warning("device_operations_rejected", difference=difference, model=loaded.name)
        return None
    if not is_recognised(loaded):
        if loaded.device.type == "cuda":
            fuse_projections(loaded.model)
        return Selected(generic, loaded)
    lean = DeviceLlama(loaded, pool, ops, loaded.max_model_len + 1)
    difference = relative_difference(probe_logits(lean, loaded, pool, ops), expected)
    if difference <= TOLERANCE[loaded.dtype]:
        return Selected(lean, loaded)
    log.warning("fused_forward_rejected", difference=difference, model=loaded.name)
    if not is_whole(loaded):
        loaded = reload()
    return Selected(GenericDeviceForward(loaded, pool, ops), loaded)


def probe_logits(forward: DeviceForward, loaded: LoadedModel, pool: KVCachePool, ops: DeviceOps) -> torch.Tensor:
    """Logits after a chunk and after a decode step in the first blocks, which are cleared again; `[2, vocab]`."""
    num_tokens = min(PROBE_LEN, loaded.max_model_len - 1, pool.num_blocks * pool.block_size - 1)
    block_ids = list(range(-(-(num_tokens + 1) // pool.block_size)))
    shape = RowShape(num_rows=2, max_len=num_tokens + 1, max_blocks=len(block_ids), max_edits=0)
    book, tables = RowBook(shape, pool.block_size, frozenset()), RowTables(shape, loaded.device)
    logits = []
    for plan in probe_plans(num_tokens, block_ids):
        row_plan = book.begin(plan)
        book.keep()
        ops.apply_differences(tables, torch.from_numpy(packed_writes(row_plan.writes)).to(loaded.device))
        logits.append(forward(_probe_step(row_plan, tables, pool, ops))[:1].float())
    pool.clear(block_ids)
    return torch.cat(logits)


def _probe_step(row_plan: RowPlan, tables: RowTables, pool: KVCachePool, ops: DeviceOps) -> DeviceStep:
    device = tables.arena.device
    num_tokens = sum(row_plan.counts)
    inputs = StepInputs(num_tokens, 1, block_size=pool.block_size, trash_block=pool.trash_block, device=device)
    plan = torch.tensor([row_plan.rows, row_plan.counts], dtype=torch.int32, device=device)
    ops.build_inputs(tables, plan, inputs)
    return DeviceStep(inputs=inputs, block_tables=tables.blocks[row_plan.rows], bounds=bounds_of(row_plan))
