"""Muon and AdamW on float32 copies of bfloat16 parameters."""

from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM

Gradients = Sequence[torch.Tensor]

PEAK_RATE = 4e-3
_MAX_NORM = 1.0


class MasterOptimizer:
    """Owns the float32 masters; after every step the network's bfloat16 parameters follow them.

    Muon moves the matrices of the layers, AdamW the embedding and the norms.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        named = dict(model.named_parameters())
        self.parameters = list(named.values())
        self._masters = [parameter.detach().float().clone().requires_grad_() for parameter in self.parameters]
        is_matrix = [parameter.ndim == 2 and "layers" in name for name, parameter in named.items()]
        matrices = [master for master, is_in in zip(self._masters, is_matrix, strict=True) if is_in]
        others = [master for master, is_in in zip(self._masters, is_matrix, strict=True) if not is_in]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]

    @torch.no_grad()
    def step(self, parts: list[tuple[Gradients, float]], rate_share: float) -> None:
        """One step along the weighted sum of the gradients, at a share of the peak rate."""
        for i, master in enumerate(self._masters):
            master.grad = sum((part[i].float() * weight for part, weight in parts), torch.zeros_like(master))
        torch.nn.utils.clip_grad_norm_(self._masters, _MAX_NORM)
        for optimizer in self._optimizers:
            optimizer.param_groups[0]["lr"] = PEAK_RATE * rate_share
            optimizer.step()
        for parameter, master in zip(self.parameters, self._masters, strict=True):
            parameter.copy_(master)
