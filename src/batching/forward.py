"""Which forward pass serves a loaded model: the fused one where it is proven equal, else transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import SubprocessError
from typing import Protocol

import structlog
import torch

from batching.attention import select_backend
from batching.attention.paged_layer import AttentionBackend, PagedLayer
from batching.attention.torch_backend import TorchBackend
from batching.fused_projections import fuse_projections
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel
from batching.packed_linear import can_pack, pack_linears
from batching.probe import TOLERANCE, probe_plans, relative_difference
from batching.step_input import StepInput, input_ids, position_ids

log = structlog.get_logger("quire.engine")

PROBE_LEN = 7
ATTENTION_PROBE_LEN = 600
"""Of the chunk that proves attention kernels: the token after it looks at more than one split of SPLIT_TOKENS."""


class Forward(Protocol):
    """One packed forward pass: logits `[len(step.logit_rows), vocab]`, one row for each sequence."""

    def __call__(self, step: StepInput) -> torch.Tensor: ...


class GenericForward:
    """transformers' own forward, with the paged attention hanging on its modules: works for every gated family."""

    def __init__(self, loaded: LoadedModel, pool: KVCachePool, backend: AttentionBackend) -> None:
        self._model = loaded.model
        self._device = loaded.device
        self._backend = backend
        for layer, cache in zip(loaded.layers, pool.layers, strict=True):
            layer.module.paged_layer = PagedLayer(cache, backend)  # type: ignore[assignment]

    def __call__(self, step: StepInput) -> torch.Tensor:
        self._backend.begin(step)
        rows = torch.tensor(step.logit_rows, dtype=torch.int64, device=self._device)
        output = self._model(
            input_ids=input_ids(step, self._device),
            position_ids=position_ids(step, self._device),
            use_cache=False,
            logits_to_keep=rows,
        )
        logits: torch.Tensor = output.logits[0]
        return logits


@torch.inference_mode()
def select_forward(loaded: LoadedModel, pool: KVCachePool, reload: Callable[[], LoadedModel]) -> Forward:
    """The fastest forward pass that gives the right logits on this machine.

    The fused pass takes the weights out of the model; should it then disagree with what the model said before,
    `reload` brings the model back and it is served as transformers runs it.
    """
    backend = select_backend(loaded.device)
    if loaded.device.type != "cpu" and not isinstance(backend, TorchBackend):
        backend = proven_backend(loaded, pool, backend)
    generic = GenericForward(loaded, pool, backend)
    fused = _proven_fused(loaded, pool, backend, generic)
    if fused is not None:
        return fused
    if not is_whole(loaded):
        loaded = reload()
        generic = GenericForward(loaded, pool, backend)
    if can_pack(loaded.dtype, loaded.device):
        pack_linears(loaded.model)
    elif loaded.device.type == "cuda":
        fuse_projections(loaded.model)
    return generic


def proven_backend(loaded: LoadedModel, pool: KVCachePool, chosen: AttentionBackend) -> AttentionBackend:
    """`chosen` where it runs and gives the logits that attention in torch gives, else that one.

    Kernels that are compiled for whatever device and driver are there may meet some that no test has seen.
    """
    num_tokens = min(ATTENTION_PROBE_LEN, loaded.max_model_len - 1)
    plain = TorchBackend(loaded.device)
    expected = _probe_logits(GenericForward(loaded, pool, plain), pool, num_tokens)
    try:
        difference = relative_difference(
            _probe_logits(GenericForward(loaded, pool, chosen), pool, num_tokens), expected
        )
    except (RuntimeError, OSError, SubprocessError) as error:
        log.warning("attention_kernels_failed", error=str(error), model=loaded.name)
        return plain
    if difference <= TOLERANCE[loaded.dtype]:
        return chosen
    log.warning("attention_kernels_rejected", difference=difference, model=loaded.name)
    return plain


def is_whole(loaded: LoadedModel) -> bool:
    """False once the fused pass has taken the weights."""
    return sum(parameter.numel() for parameter in loaded.model.parameters()) == loaded.num_parameters


def _proven_fused(
    loaded: LoadedModel, pool: KVCachePool, backend: AttentionBackend, generic: GenericForward
) -> Forward | None:
    try:
        from batching.fused_llama import FusedForward, is_recognised
    except ImportError:
        return None
    if not is_recognised(loaded):
        return None
    expected = _probe_logits(generic, pool)
    fused = FusedForward(loaded, pool, backend)  # type: ignore[arg-type]
    difference = relative_difference(_probe_logits(fused, pool), expected)
    if difference <= TOLERANCE[loaded.dtype]:
        return fused
    log.warning("fused_forward_rejected", difference=difference, model=loaded.name)
    return None


def _probe_logits(forward: Forward, pool: KVCachePool, num_tokens: int = PROBE_LEN) -> torch.Tensor:
    """Logits after a chunk and after a decode step in the first blocks, which are cleared again; `[2, vocab]`."""
    num_tokens = min(num_tokens, pool.num_blocks * pool.block_size - 1)
    block_ids = list(range(-(-(num_tokens + 1) // pool.block_size)))
    plans = probe_plans(num_tokens, block_ids)
    logits = torch.cat([forward(StepInput(plan, pool.block_size)).float() for plan in plans])
    pool.clear(block_ids)
    return logits
